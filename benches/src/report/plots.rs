//! The plots, as SVG.

use plotters::prelude::*;

use super::Report;
use crate::row::Row;
use crate::rows::lateness;

pub struct Plot {
    pub name: String,
    pub title: String,
    pub svg: String,
}

/// A line of a plot, or the steps of a histogram.
struct Series {
    name: String,
    ours: bool,
    points: Vec<(f64, f64)>,
}

/// The names of the axes.
struct Axes {
    x: &'static str,
    y: &'static str,
}

/// Colours that colour-blind readers can distinguish, on white and on black.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 40),
    RGBColor(120, 94, 240),
    RGBColor(127, 127, 127),
    RGBColor(160, 60, 60),
    RGBColor(40, 160, 160),
];
/// The colour of pollmux.
const OURS: RGBColor = RGBColor(213, 94, 0);
const SIZE: (u32, u32) = (760, 440);

/// Returns the plots for which the run has figures.
pub fn all(report: &Report) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (name, title) in [
        ("later", "Put one of n live timers off, at random"),
        ("earlier", "Pull one of n live timers earlier, at random"),
    ] {
        let axes = Axes { x: "live timers", y: "ns" };
        let series = lines(report, &format!("timers/{name}/"));
        plots.extend(plot(&format!("timers-{name}"), title, &axes, &series, false));
    }
    let axes = Axes { x: "channels", y: "ns" };
    let title = "A message to one of n channels, found and taken";
    let mut series = lines(report, "channels/wait/");
    series.extend(lines(report, "channels/Select/").into_iter().filter(|series| series.ours));
    plots.extend(plot("channels", title, &axes, &series, false));
    let axes = Axes { x: "producers", y: "million messages a second" };
    let mut series = lines(report, "threads/select/");
    series.extend(lines(report, "threads/recv/").into_iter().filter(|series| series.ours));
    for (_, ns) in series.iter_mut().flat_map(|series| &mut series.points) {
        *ns = 1e3 / *ns;
    }
    plots.extend(plot("threads", "Throughput, capacity 1,024", &axes, &series, false));
    let mut delays: Vec<&str> = report.lateness.iter().map(|(delay, ..)| &**delay).collect();
    delays.dedup();
    for delay in delays {
        let axes = Axes { x: "µs late", y: "% of the timers that are at most so late" };
        let of = report.lateness.iter().filter(|(of, ..)| of == delay);
        let series: Vec<Series> = of
            .map(|(_, name, percentiles)| Series {
                name: name.clone(),
                ours: name.starts_with("pollmux"),
                points: percentiles
                    .iter()
                    .zip(0..)
                    .map(|(ns, p)| (ns / 1e3, f64::from(p)))
                    .collect(),
            })
            .collect();
        let title = format!("How late a timer of {} is", readable(delay));
        plots.extend(plot(&format!("lateness-{delay}"), &title, &axes, &series, true));
    }
    plots
}

fn readable(delay: &str) -> String {
    let known = lateness::DELAYS.iter().find(|(_, name, _)| *name == delay);
    known.map_or(delay.to_string(), |(us, ..)| lateness::readable(*us))
}

/// Returns a line for each contestant of the rows whose names begin with `prefix` and end with a
/// number.
fn lines(report: &Report, prefix: &str) -> Vec<Series> {
    let rows = report.rows.iter().filter_map(|row: &Row| {
        let x: f64 = row.work.strip_prefix(prefix)?.parse().ok()?;
        Some((x, row))
    });
    let mut all: Vec<Series> = Vec::new();
    for (x, row) in rows {
        for figure in &row.figures {
            let Some(y) = figure.value.filter(|y| *y > 0.0) else { continue };
            let ours = figure.role == "pollmux";
            let name = match (ours, figure.name.strip_prefix("pollmux")) {
                (true, None) => format!("pollmux {}", figure.name),
                _ => figure.name.clone(),
            };
            match all.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push((x, y)),
                None => all.push(Series { name, ours, points: vec![(x, y)] }),
            }
        }
    }
    all.retain(|series| series.points.len() > 1);
    all
}

/// Draws a plot. Returns `None` if there is no line. The x axis is logarithmic, and so is y unless
/// it is a share.
fn plot(name: &str, title: &str, axes: &Axes, series: &[Series], is_share: bool) -> Option<Plot> {
    let points = || series.iter().flat_map(|series| &series.points);
    let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    points().next()?;
    let x = (least(|p| p.0) * 0.9, most(|p| p.0) * 1.1);
    let y = if is_share { (0.0, 100.0) } else { (least(|p| p.1) * 0.8, most(|p| p.1) * 1.25) };
    let mut svg = String::new();
    draw(&mut svg, axes, series, (x, y), is_share).expect("a plot in memory");
    Some(Plot { name: name.to_string(), title: title.to_string(), svg: titled(&svg, title) })
}

/// Adds a title for readers that do not see the plot.
fn titled(svg: &str, title: &str) -> String {
    svg.replacen(">\n", &format!(" role=\"img\">\n<title>{title}</title>\n"), 1)
}

type Span = (f64, f64);

fn draw(
    svg: &mut String,
    axes: &Axes,
    series: &[Series],
    (x, y): (Span, Span),
    is_share: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    // The names are beside the plot, because the lines cross each other.
    let (left, right) = root.split_horizontally(SIZE.0 as i32 - 210);
    let mut builder = ChartBuilder::on(&left);
    builder.margin(8).x_label_area_size(42).y_label_area_size(62);
    macro_rules! chart {
        ($x:expr, $y:expr) => {{
            let mut chart = builder.build_cartesian_2d($x, $y)?;
            chart
                .configure_mesh()
                .light_line_style(RGBColor(240, 240, 240))
                .bold_line_style(RGBColor(215, 215, 215))
                .x_desc(axes.x)
                .y_desc(axes.y)
                .x_label_formatter(&|x| label(*x))
                .y_label_formatter(&|y| label(*y))
                .label_style(("sans-serif", 13))
                .axis_desc_style(("sans-serif", 14))
                .draw()?;
            let mut others = COLOURS.iter().cycle();
            let (mut ours, mut line) = (0, 0);
            for series in series {
                let colour = match series.ours {
                    true => OURS,
                    false => *others.next().expect("a cycle"),
                };
                let style = colour.stroke_width(if series.ours { 3 } else { 2 });
                // The second line of pollmux is thinner.
                let style = if series.ours && ours > 0 { colour.stroke_width(1) } else { style };
                ours += usize::from(series.ours);
                chart.draw_series(LineSeries::new(series.points.iter().copied(), style))?;
                if !is_share {
                    let dots = series.points.iter();
                    chart.draw_series(dots.map(|p| Circle::new(*p, 3, colour.filled())))?;
                }
                let at = 24 + 22 * line;
                line += 1;
                right.draw(&PathElement::new(vec![(4, at), (26, at)], style))?;
                right.draw(&Text::new(series.name.clone(), (32, at - 6), ("sans-serif", 13)))?;
            }
        }};
    }
    if is_share {
        chart!((x.0..x.1).log_scale(), y.0..y.1);
    } else {
        chart!((x.0..x.1).log_scale(), (y.0..y.1).log_scale());
    }
    root.present()?;
    Ok(())
}

/// Formats a number on an axis.
fn label(x: f64) -> String {
    if x >= 1e6 {
        format!("{}M", super::trimmed(x / 1e6))
    } else if x >= 1e3 {
        format!("{}k", super::trimmed(x / 1e3))
    } else {
        super::trimmed(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        assert_eq!([0.5, 20.0, 1_500.0, 2e6].map(label), ["0.5", "20", "1.5k", "2M"]);
    }
}
