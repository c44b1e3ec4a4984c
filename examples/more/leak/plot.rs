//! The pictures of `--forget`: an SVG file, and a coarse picture for the terminal.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use textplots::{Chart as TextChart, LabelBuilder, LabelFormat, Plot, Shape};

use crate::meter::{Reading, Spent};
use crate::{Result, Run};

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Points = Vec<(f64, f64)>;

const SIZE: (u32, u32) = (1_080, 1_160);
/// The width of the charts. The rest of the width is for the legends.
const CHART_WIDTH: u32 = 760;
const FONT: &str = "sans-serif";

/// The colors of the three loops, in their order.
const LOOPS: [RGBColor; 3] =
    [RGBColor(0x2a, 0x9d, 0x5c), RGBColor(0x1f, 0x6f, 0xb5), RGBColor(0xd6, 0x3a, 0x2f)];
const EXPIRY: RGBColor = RGBColor(0xd6, 0x3a, 0x2f);
const RECEIVING: RGBColor = RGBColor(0xf2, 0x9a, 0x4a);
const WAIT_CPU: RGBColor = RGBColor(0x4a, 0x7f, 0xb8);
const ASLEEP: RGBColor = RGBColor(0xcf, 0xdd, 0xea);
const STOLEN: RGBColor = RGBColor(0xee, 0xee, 0xe6);

impl Run {
    /// Returns a point for each window: the number of tickers in its middle, and a value.
    fn points(&self, value: impl Fn(&Spent) -> f64) -> Points {
        let point = |pair: &[Reading]| {
            let x = (pair[0].turns + pair[1].turns) as f64 / 2.0;
            (x, value(&pair[1].since(&pair[0])))
        };
        self.readings.windows(2).map(point).collect()
    }

    fn cpu(&self) -> Points {
        self.points(|spent| spent.percent(spent.cpu))
    }

    /// Returns the allocated MiB since the start, for each reading.
    fn memory(&self) -> Points {
        let mib = |reading| self.bytes(reading) as f64 / f64::from(1 << 20);
        self.readings.iter().map(|reading| (reading.turns as f64, mib(reading))).collect()
    }

    fn turns(&self) -> f64 {
        self.whole().turns as f64
    }
}

/// Returns the least round number that is not below any point.
fn ceiling<'a>(lines: impl IntoIterator<Item = &'a Points>) -> f64 {
    let most = lines.into_iter().flatten().fold(1.0, |most, point| point.1.max(most));
    let unit = 10f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|&round| most <= round).unwrap_or(most)
}

fn last(points: &Points) -> f64 {
    points.last().map_or(0.0, |point| point.1)
}

/// Writes the picture, as SVG.
pub fn svg(path: &Path, runs: &[Run; 3], period: Duration) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(76);
    let title = "A loop that makes a ticker in every turn";
    head.draw(&Text::new(title, (28, 18), (FONT, 25).into_font().style(FontStyle::Bold)))?;
    let messages = runs[0].turns() / runs[0].whole().wall.as_secs_f64();
    let about =
        format!("period {period:?}; {} messages a second, one in each turn", thousands(messages));
    head.draw(&Text::new(about, (28, 52), (FONT, 16).into_font().color(&BLACK.mix(0.7))))?;
    let panels = body.split_evenly((3, 1));

    let cpu = runs.each_ref().map(Run::cpu);
    let most = ceiling(&cpu).min(100.0);
    lines(&panels[0], "CPU of the loop's thread", "% of one core", most, runs, &cpu, |y| {
        format!("{y:.0} %")
    })?;
    shares(&panels[1], &runs[2])?;
    let memory = runs.each_ref().map(Run::memory);
    let title = "Memory allocated since the start";
    lines(&panels[2], title, "MiB", ceiling(&memory), runs, &memory, |y| format!("{y:.1} MiB"))?;
    root.present()?;
    Ok(())
}

/// Returns a chart with its axes, and the area for its legend.
fn chart<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    unit: &str,
    x: f64,
    y: f64,
) -> Result<(Chart<'a, 'b>, Area<'b>)> {
    let (left, right) = area.split_horizontally(CHART_WIDTH);
    let mut chart = ChartBuilder::on(&left)
        .margin(12)
        .margin_left(20)
        .caption(title, (FONT, 19).into_font().style(FontStyle::Bold))
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..x, 0.0..y)?;
    chart
        .configure_mesh()
        .x_desc("tickers made so far")
        .y_desc(unit)
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 14))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|x| thousands(*x))
        .y_label_formatter(&|y| format!("{}", (y * 1e3).round() / 1e3))
        .draw()?;
    Ok((chart, right))
}

/// Draws one line for each loop. The legend has the names in the order of the lines' ends.
fn lines(
    area: &Area<'_>,
    title: &str,
    unit: &str,
    most: f64,
    runs: &[Run; 3],
    points: &[Points; 3],
    value: impl Fn(f64) -> String,
) -> Result<()> {
    let (mut chart, legend) = chart(area, title, unit, runs[0].turns(), most)?;
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| last(&points[b]).total_cmp(&last(&points[a])));
    for (place, which) in order.into_iter().enumerate() {
        let color = LOOPS[which];
        chart.draw_series(LineSeries::new(points[which].iter().copied(), color.stroke_width(3)))?;
        let end = format!("{}: {} at the end", runs[which].about, value(last(&points[which])));
        entry(&legend, place, color, runs[which].name, &end)?;
    }
    Ok(())
}

/// Draws the parts of the receiving loop's time on top of each other.
fn shares(area: &Area<'_>, run: &Run) -> Result<()> {
    let title = format!("Shares of the time: {}", run.name);
    let (mut chart, legend) = chart(area, &title, "% of the time", run.turns(), 100.0)?;
    let parts = parts(run);
    let mut below: Points = parts[0].1.iter().map(|&(x, _)| (x, 0.0)).collect();
    for (place, (name, points, color)) in parts.iter().enumerate() {
        let above: Points =
            below.iter().zip(points).map(|(&(x, y), more)| (x, (y + more.1).min(100.0))).collect();
        let outline: Points = below.iter().copied().chain(above.iter().rev().copied()).collect();
        chart.draw_series([Polygon::new(outline, color.filled())])?;
        // The uppermost part is the first entry, as in the picture.
        entry(
            &legend,
            parts.len() - 1 - place,
            *color,
            name,
            &format!("{:.0} % at the end", last(points)),
        )?;
        below = above;
    }
    Ok(())
}

type Part = (&'static str, Points, RGBColor);

/// Returns the parts of a receiving loop's time, the lowest part first. Making a ticker and taking
/// the message count as receiving.
fn parts(run: &Run) -> [Part; 5] {
    let own = |spent: &Spent| spent.cpu.saturating_sub(spent.driver + spent.expiry);
    [
        ("expiry", run.points(|spent| spent.percent(spent.expiry)), EXPIRY),
        ("receiving, arming again", run.points(|spent| spent.percent(own(spent))), RECEIVING),
        ("epoll_wait, settime: CPU", run.points(|spent| spent.percent(spent.driver)), WAIT_CPU),
        (
            "epoll_wait: asleep",
            run.points(|spent| spent.percent(spent.waited.saturating_sub(spent.driver))),
            ASLEEP,
        ),
        ("waiting for a core", run.points(|spent| spent.percent(spent.stolen())), STOLEN),
    ]
}

/// Draws one entry of a legend.
fn entry(legend: &Area<'_>, place: usize, color: RGBColor, name: &str, about: &str) -> Result<()> {
    let y = 62 + 52 * place as i32;
    legend.draw(&Rectangle::new([(8, y), (26, y + 18)], color.filled()))?;
    legend.draw(&Text::new(name.to_owned(), (36, y), (FONT, 17)))?;
    legend.draw(&Text::new(
        about.to_owned(),
        (36, y + 22),
        (FONT, 14).into_font().color(&BLACK.mix(0.65)),
    ))?;
    Ok(())
}

/// Formats a number with commas: `100,000`.
fn thousands(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints the two upper charts with braille dots.
pub fn terminal(runs: &[Run; 3]) {
    let cpu = runs.each_ref().map(Run::cpu);
    let names = runs.each_ref().map(|run| run.name);
    println!("\nCPU of the loop's thread, % of one core, over the tickers made so far");
    text_chart(
        ceiling(&cpu).min(100.0),
        runs[0].turns(),
        &names.into_iter().zip(&cpu).collect::<Vec<_>>(),
    );

    println!("\n{}: share of the time, %", runs[2].name);
    let waiting = runs[2].points(|spent| spent.percent(spent.waited));
    let expiry = runs[2].points(|spent| spent.percent(spent.expiry));
    text_chart(100.0, runs[2].turns(), &[("in epoll_wait", &waiting), ("expiry", &expiry)]);
}

fn text_chart(most: f64, right: f64, lines: &[(&str, &Points)]) {
    let points: Vec<Vec<(f32, f32)>> = lines
        .iter()
        .map(|line| line.1.iter().map(|&(x, y)| (x as f32, y as f32)).collect())
        .collect();
    let shapes: Vec<Shape<'_>> = points.iter().map(|points| Shape::Lines(points)).collect();
    let mut chart = TextChart::new_with_y_range(130, 48, 0.0, right as f32, 0.0, most as f32);
    let chart = shapes.iter().fold(&mut chart, |chart, shape| chart.lineplot(shape));
    let chart = chart.x_label_format(LabelFormat::Custom(Box::new(|x| thousands(f64::from(x)))));
    let chart = chart.y_label_format(LabelFormat::Custom(Box::new(|y| format!("{y:.0} %"))));
    chart.borders();
    chart.axis();
    chart.figures();
    println!("{chart}");
    let mut order: Vec<_> = lines.iter().collect();
    order.sort_by(|a, b| last(b.1).total_cmp(&last(a.1)));
    let ends: Vec<String> =
        order.iter().map(|line| format!("{} {:.1}", line.0, last(line.1))).collect();
    println!("at the right, from the top: {}", ends.join(" | "));
}
