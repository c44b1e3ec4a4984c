//! Simulates a week of heartbeats, retries and outages in a `SimWorld`. The run takes milliseconds,
//! and one seed always gives the same week.
//!
//! Three sensors report to a monitor over a network that loses every tenth message. A sensor sends
//! a heartbeat again until the monitor acknowledges it. Once a day another member cuts one sensor
//! off for some hours, and the monitor notices. A context that all members share ends the week.
//!
//! `cargo run --release --example sim_world -- --seed 7`

use std::io;
use std::time::{Duration, Instant};

use clap::{Arg, Command, value_parser};
use pollmux::channel::{self, Receiver};
use pollmux::{
    Context, Reactor, SimWorld, Time, select,
    sim::{Link, LinkStats, WorldHandle},
};

struct Args {
    seed: u64,
    days: u32,
}

impl Args {
    fn parse() -> Args {
        let seed = Arg::new("seed").long("seed").value_parser(value_parser!(u64));
        let days = Arg::new("days").long("days").value_parser(value_parser!(u32).range(1..=366));
        let about = "A week of heartbeats and retries in virtual time";
        let found = Command::new("sim_world").about(about).args([
            seed.default_value("1").help("Seed of the simulation"),
            days.default_value("7").help("Days to simulate"),
        ]);
        let mut found = found.get_matches();
        Args { seed: found.remove_one("seed").unwrap(), days: found.remove_one("days").unwrap() }
    }
}

const SENSORS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);
const HEARTBEAT: Duration = Duration::from_secs(1800);
/// The time until the first retry. It doubles with each retry, up to the time of a heartbeat.
const RETRY: Duration = Duration::from_secs(5);
/// A sensor that is silent for this long is down.
const SILENCE: Duration = Duration::from_secs(2 * 3600);

/// The number of a sensor and of its heartbeat.
type Beat = (usize, u64);

#[derive(Debug, Default)]
struct Report {
    beats: u64,
    retries: u64,
    acknowledged: u64,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let start = Instant::now();
    let mut world = SimWorld::new(args.seed);
    let (week, _canceller) = Context::on_clock(world.clock()).with_timeout(24 * HOUR * args.days);

    let (to_monitor, beats) = channel::unbounded::<Beat>();
    let mut acks = Vec::new();
    let mut links = Vec::new();
    let mut sensors = Vec::new();
    let wire = Duration::from_millis(20)..=Duration::from_millis(400);
    for id in 0..SENSORS {
        let (to_sensor, inbox) = channel::unbounded::<u64>();
        let name = format!("sensor {id}");
        let up = world
            .link(&name, "monitor", to_monitor.clone())
            .with_delay(wire.clone())
            .with_loss(0.1);
        let down = world.link("monitor", &name, to_sensor).with_delay(wire.clone()).with_loss(0.1);
        links.push(up.clone());
        acks.push(down);
        let week = week.clone();
        sensors.push(world.spawn(&name, move |reactor| sensor(&reactor, id, &up, inbox, &week)));
    }
    drop(to_monitor);
    let context = week.clone();
    let monitor = world.spawn("monitor", move |reactor| monitor(&reactor, beats, &acks, &context));
    let (handle, context, seed) = (world.handle(), week.clone(), args.seed);
    world.spawn("trouble", move |reactor| trouble(&reactor, &handle, seed, &context));

    world.run()?;
    let real = start.elapsed();

    println!();
    println!("            heartbeats  retries  acknowledged  messages: sent   lost");
    for (id, (member, link)) in sensors.iter().zip(&links).enumerate() {
        let Report { beats, retries, acknowledged } =
            member.take().expect("the sensor has returned")?;
        let LinkStats { sent, lost, .. } = link.stats();
        println!(
            "  sensor {id}  {beats:>10}  {retries:>7}  {acknowledged:>12}  {sent:>14}  {lost:>5}"
        );
    }
    let outages = monitor.take().expect("the monitor has returned")?;
    let (stats, simulated) = (world.stats(), world.now() - Time::ZERO);
    println!("  the monitor has seen {outages} outages");
    println!(
        "  {} s simulated in {} ms; the turn went to another thread {} times",
        simulated.as_secs(),
        real.as_millis(),
        stats.handovers,
    );
    Ok(())
}

/// Sends each heartbeat until the monitor acknowledges it, or the next heartbeat is due.
fn sensor(
    reactor: &Reactor,
    id: usize,
    monitor: &Link<Beat>,
    acks: Receiver<u64>,
    week: &Context,
) -> io::Result<Report> {
    let acks = reactor.register(acks)?;
    let done = reactor.done(week);
    let heartbeat = reactor.every(HEARTBEAT)?;
    let retry = reactor.timer();
    let (mut report, mut patience) = (Report::default(), RETRY);
    loop {
        select! { reactor;
            recv(heartbeat) -> _ => {
                report.beats += 1;
                monitor.send((id, report.beats));
                patience = RETRY;
                retry.reset(patience);
            },
            recv(retry) -> _ => {
                report.retries += 1;
                monitor.send((id, report.beats));
                patience = (patience * 2).min(HEARTBEAT);
                retry.reset(patience);
            },
            recv(acks) -> ack => if ack == Ok(report.beats) && retry.stop() {
                report.acknowledged += 1;
            },
            recv(done) -> _ => return Ok(report),
        }
    }
}

/// Acknowledges heartbeats, and looks for silent sensors. Returns the number of outages.
fn monitor(
    reactor: &Reactor,
    beats: Receiver<Beat>,
    acks: &[Link<u64>],
    week: &Context,
) -> io::Result<u64> {
    let beats = reactor.register(beats)?;
    let done = reactor.done(week);
    let look = reactor.every(HEARTBEAT / 2)?;
    let mut heard = [(reactor.now(), true); SENSORS];
    let mut outages = 0;
    loop {
        select! { reactor;
            recv(beats) -> beat => if let Ok((id, number)) = beat {
                acks[id].send(number);
                let before = std::mem::replace(&mut heard[id], (reactor.now(), true));
                if !before.1 {
                    let minutes = (reactor.now() - before.0).as_secs() / 60;
                    say(
                        reactor.now(),
                        &format!("monitor  sensor {id} is back, after {minutes} min"),
                    );
                }
            },
            recv(look) -> _ => for (id, (last, up)) in heard.iter_mut().enumerate() {
                if *up && reactor.now() - *last > SILENCE {
                    *up = false;
                    outages += 1;
                    say(reactor.now(), &format!("monitor  sensor {id} is silent"));
                }
            },
            recv(done) -> _ => return Ok(outages),
        }
    }
}

/// Cuts a sensor off once a day, for one to six hours.
fn trouble(reactor: &Reactor, world: &WorldHandle, seed: u64, week: &Context) -> io::Result<()> {
    let done = reactor.done(week);
    let day = reactor.every(24 * HOUR)?;
    day.reset(10 * HOUR)?;
    let mend = reactor.timer();
    let mut dice = seed;
    loop {
        select! { reactor;
            recv(day) -> _ => {
                day.reset(24 * HOUR)?;
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let name = format!("sensor {}", (dice >> 33) % SENSORS as u64);
                let hours = 1 + (dice >> 48) as u32 % 6;
                say(reactor.now(), &format!("trouble  {name} is cut off for {hours} h"));
                world.partition(&[&[&name]]);
                mend.reset(HOUR * hours);
            },
            recv(mend) -> _ => world.heal(),
            recv(done) -> _ => return Ok(()),
        }
    }
}

fn say(now: Time, what: &str) {
    let minutes = (now - Time::ZERO).as_secs() / 60;
    println!("day {}  {:02}:{:02}  {what}", 1 + minutes / 1440, minutes / 60 % 24, minutes % 60);
}
