//! Mutation tests: `cargo run --manifest-path tests/mutants/Cargo.toml -- [OPTION..]`.
//!
//! Copies the tree to `target/mutants/tree` with a switch for each mutation, so that one build has
//! all mutants. Then runs, for each mutant, the groups of tests that reach it. A mutant is killed
//! if a test fails. A mutant is also killed if a test hangs twice, the second time with four times
//! the limit. A survivor that is not in `survivors.txt` fails the run. A survivor that a model
//! kills counts as killed.
//!
//! `--list` only lists. `--only TEXT`, any number of times, takes mutants with TEXT in their names.
//! `--minutes M` stops after M minutes, `--seed S` shuffles the mutants, `--jobs J` runs J at a
//! time. `--loom` runs the loom models that take at most 20 s. These run for the mutants of
//! orderings and fences, or for those of `--only`. A hang of a model kills nothing: a weaker
//! ordering has more interleavings.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

mod rewrite;
use rewrite::{Mutant, Rewrite};

const FOLDERS: [&str; 4] = ["src/wake", "src/channel", "src/reactor/parts", "src/context"];
/// The order of the binaries: the cheapest first.
const BINARIES: [&str; 4] = ["pollmux", "model", "conformance", "api"];
/// The number that makes the switch record the reached mutants.
const RECORD: &str = "-2";
const HANGS: &str = "hangs";

/// The tests of one module of one binary, and the mutants that the tests reach.
struct Group {
    name: String,
    binary: PathBuf,
    tests: Vec<String>,
    takes: Duration,
    reached: HashSet<usize>,
}

struct Options {
    list: bool,
    loom: bool,
    only: Vec<String>,
    minutes: u64,
    seed: u64,
    jobs: usize,
}

fn options() -> Options {
    let mut options =
        Options { list: false, loom: false, only: Vec::new(), minutes: 600, seed: 0, jobs: 1 };
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().expect("an option's value");
        match &*option {
            "--list" => options.list = true,
            "--loom" => options.loom = true,
            "--only" => options.only.push(value()),
            "--minutes" => options.minutes = value().parse().expect("minutes"),
            "--seed" => options.seed = value().parse().expect("a seed"),
            "--jobs" => options.jobs = value().parse().expect("a number of jobs"),
            other => panic!("no option {other}"),
        }
    }
    options
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn write_if_changed(path: &Path, text: &[u8]) {
    if fs::read(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
    fs::write(path, text).expect("write a file");
}

/// Copies the tree with its switches, except for the mutants in `broken`.
fn copy(root: &Path, tree: &Path, broken: &BTreeSet<String>) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    let files = output(Command::new("git").args(["ls-files"]).current_dir(root));
    for file in files.lines().filter(|file| root.join(file).is_file()) {
        let mut bytes = fs::read(root.join(file)).expect("read a file");
        let is_test = ["tests.rs", "models.rs", "testing.rs"].iter().any(|end| file.ends_with(end));
        if FOLDERS.iter().any(|folder| file.starts_with(folder)) && !is_test {
            let text = String::from_utf8(bytes).expect("UTF-8");
            let skip = |name: &str| broken.contains(name);
            let rewrite = Rewrite::new(file, &text, mutants.len() + 1, &skip);
            bytes = rewrite.finish().into_bytes();
            mutants.extend(rewrite.mutants);
        } else if file == "src/lib.rs" {
            bytes.extend_from_slice(include_bytes!("switch.rs"));
        }
        write_if_changed(&tree.join(file), &bytes);
    }
    mutants
}

/// Returns the number of the innermost mutant around a place in a compiler message.
fn mutant_at(tree: &Path, file: &str, line: usize, column: usize) -> Option<usize> {
    let text = fs::read_to_string(tree.join(file)).ok()?;
    let begin: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let mut open = Vec::new();
    for (at, _) in
        text.match_indices("<*/").chain(text.match_indices("/*>*/")).collect::<BTreeMap<_, _>>()
    {
        if at >= begin + column {
            break;
        }
        if text[at..].starts_with('<') {
            let start = text[..at].rfind("/*")? + 2;
            open.push(text[start..at].parse().ok()?);
        } else {
            open.pop();
        }
    }
    open.pop()
}

fn cargo(tree: &Path, root: &Path, loom: bool) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree).args(["test", "--locked", "--no-run", "--lib"]);
    let build = if loom { "target/mutants/loom" } else { "target/mutants/build" };
    cargo.env("CARGO_TARGET_DIR", root.join(build));
    if loom {
        cargo.arg("--release").env("RUSTFLAGS", "--cfg loom --cap-lints allow");
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    } else {
        cargo.args(["--test", "model", "--test", "conformance", "--test", "api"]);
        cargo.env("RUSTFLAGS", "--cap-lints allow");
    }
    cargo
}

/// Builds the tree without the mutants that do not compile.
fn build(root: &Path, tree: &Path, loom: bool) -> (Vec<Mutant>, Vec<PathBuf>) {
    let list = root.join(if loom { "target/mutants/broken-loom" } else { "target/mutants/broken" });
    let mut broken: BTreeSet<String> =
        fs::read_to_string(&list).unwrap_or_default().lines().map(str::to_string).collect();
    for _ in 0..20 {
        let mutants = copy(root, tree, &broken);
        let built = cargo(tree, root, loom).output().expect("cargo starts");
        let said = String::from_utf8_lossy(&built.stderr);
        if built.status.success() {
            fs::write(&list, broken.into_iter().map(|name| name + "\n").collect::<String>())
                .expect("write the list");
            let path = |line: &str| Some(line.split_once(" (")?.1.strip_suffix(')')?.to_string());
            let lines = said.lines().filter(|line| line.contains("Executable"));
            return (mutants, lines.filter_map(path).map(|path| root.join(path)).collect());
        }
        let before = broken.len();
        let mut is_error = false;
        for line in said.lines() {
            is_error = (is_error || line.starts_with("error")) && !line.is_empty();
            let Some(place) = line.trim_start().strip_prefix("--> ") else { continue };
            let mut parts = place.split(':');
            let (Some(file), Some(line), Some(column)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let (line, column) = (line.parse().expect("a line"), column.parse().expect("a column"));
            if is_error && let Some(number) = mutant_at(tree, file, line, column) {
                broken.insert(mutants[number - 1].name.clone());
            }
        }
        println!("{} mutants do not compile", broken.len());
        assert!(broken.len() > before, "the copy does not compile:\n{said}");
    }
    panic!("mutants that do not compile are left after 20 builds");
}

/// Runs tests until one fails. Returns the reason for the kill, if there is one.
fn run(
    group: &Group,
    tree: &Path,
    mutant: &str,
    reached: &Path,
    limit: Duration,
) -> Option<String> {
    let mut command = Command::new(&group.binary);
    command.arg("--exact").args(&group.tests).current_dir(tree);
    command.env("MUTANT", mutant).env("MUTANT_REACHED", reached).env("LOOM_MAX_PREEMPTIONS", "2");
    command.env("RUST_TEST_THREADS", "8");
    command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().expect("the tests start");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
    let end = Instant::now() + limit;
    let mut killed = None;
    let mut finished = false;
    while killed.is_none() {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with("test ") && line.ends_with("FAILED") => {
                killed = Some(line)
            }
            Ok(line) => finished |= line.starts_with("test result: ok"),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => killed = Some(HANGS.into()),
            Err(_) => break,
        }
    }
    if killed.is_some() {
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status();
    }
    let _ = child.wait();
    killed.or((!finished).then(|| "the process died".into()))
}

/// Returns the reason why the group kills a mutant, if it does. A hang must happen twice.
fn kills(group: &Group, tree: &Path, mutant: &Mutant, loom: bool) -> Option<String> {
    let limit = 4 * group.takes + Duration::from_secs(10);
    let once = |limit| run(group, tree, &mutant.number.to_string(), "/dev/null".as_ref(), limit);
    let why = match once(limit) {
        Some(why) if why == HANGS && loom => None,
        Some(why) if why == HANGS => once(4 * limit),
        why => why,
    };
    why.map(|why| format!("{}: {why}", group.name))
}

fn groups(root: &Path, tree: &Path, binaries: &[PathBuf], loom: bool) -> Vec<Group> {
    let reached = root.join("target/mutants/reached");
    let mut groups = Vec::new();
    for start in BINARIES {
        let is_it = |path: &&PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{start}-")))
        };
        let Some(binary) = binaries.iter().find(is_it) else { continue };
        let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in output(Command::new(binary).arg("--list").current_dir(tree)).lines() {
            let Some(test) = line.strip_suffix(": test") else { continue };
            if loom && !test.contains("models::") {
                continue;
            }
            let module =
                if loom { test } else { test.rsplit_once("::").map_or("", |parts| parts.0) };
            modules.entry(module.to_string()).or_default().push(test.to_string());
        }
        for (module, tests) in modules {
            fs::write(&reached, "").expect("empty the file");
            let name = format!("{start} {module}");
            let mut group = Group {
                name,
                binary: binary.clone(),
                tests,
                takes: Duration::ZERO,
                reached: HashSet::new(),
            };
            let begin = Instant::now();
            let limit = Duration::from_secs(if loom { 20 } else { 300 });
            if let Some(why) = run(&group, tree, RECORD, &reached, limit) {
                println!("left out, without a mutant: {} ({why})", group.name);
                continue;
            }
            group.takes = begin.elapsed();
            let bytes = fs::read(&reached).expect("the reached mutants");
            let numbers =
                bytes.chunks_exact(4).map(|four| u32::from_ne_bytes(four.try_into().unwrap()));
            group.reached = numbers.map(|number| number as usize).collect();
            println!(
                "{}: {} tests, {} ms, reach {}",
                group.name,
                group.tests.len(),
                group.takes.as_millis(),
                group.reached.len()
            );
            groups.push(group);
        }
    }
    groups.sort_by_key(|group| group.takes);
    groups
}

/// Returns a place among the mutants that depends on the seed, and on no other mutant.
fn rank(seed: u64, name: &str) -> u64 {
    // SplitMix64.
    name.bytes().fold(seed, |state, byte| {
        let mut mixed = (state ^ u64::from(byte)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

fn main() {
    let options = options();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root");
    let tree =
        root.join(if options.loom { "target/mutants/tree-loom" } else { "target/mutants/tree" });
    if options.list {
        let mutants = copy(root, &tree, &BTreeSet::new());
        mutants.iter().for_each(|mutant| println!("{}", mutant.name));
        return;
    }
    let (mut mutants, binaries) = build(root, &tree, options.loom);
    let groups = groups(root, &tree, &binaries, options.loom);
    let concerns_loom = |name: &str| name.contains("| ordering |") || name.contains("fence(");
    let known = fs::read_to_string(root.join("tests/mutants/survivors.txt")).unwrap_or_default();
    let known = known.lines().filter(|line| line.starts_with("src/"));
    let known: HashMap<_, _> = known.filter_map(|line| line.split_once(" => ")).collect();
    for name in known.keys().filter(|name| !mutants.iter().any(|mutant| mutant.name == **name)) {
        println!("survivors.txt names no mutant: {name}");
    }
    let is_asked = |name: &str| options.only.iter().any(|text| name.contains(text));
    mutants.retain(|mutant| options.only.is_empty() || is_asked(&mutant.name));
    let all = !options.loom || !options.only.is_empty();
    mutants.retain(|mutant| all || concerns_loom(&mutant.name));
    if options.seed != 0 {
        mutants.sort_by_cached_key(|mutant| rank(options.seed, &mutant.name));
    }
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    let next = AtomicUsize::new(0);
    // Killed, known survivors, new survivors, and mutants that are not reached, by folder.
    let counts: Mutex<BTreeMap<&str, [usize; 4]>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while Instant::now() < end
                    && let Some(mutant) = mutants.get(next.fetch_add(1, Relaxed))
                {
                    let reach =
                        groups.iter().filter(|group| group.reached.contains(&mutant.number));
                    let reach: Vec<&Group> = reach.collect();
                    let killed =
                        reach.iter().find_map(|group| kills(group, &tree, mutant, options.loom));
                    let reason = known.get(&*mutant.name).map(|reason| reason.to_string());
                    let (column, word, why) = match (killed, reason) {
                        (Some(why), _) => (0, "killed", why),
                        (None, Some(why)) if why.starts_with("model ") => (0, "killed", why),
                        (None, _) if reach.is_empty() => (3, "not reached", String::new()),
                        (None, Some(reason)) => (1, "known", reason),
                        (None, None) => (2, "SURVIVES", String::new()),
                    };
                    let is_in = |folder: &&&str| mutant.name.starts_with(**folder);
                    let folder = FOLDERS.iter().find(is_in).expect("a folder");
                    counts.lock().unwrap().entry(folder).or_default()[column] += 1;
                    println!("{word}: {} (line {}) <= {why}", mutant.name, mutant.line);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    let mut all = [0; 4];
    for (folder, of_folder) in &counts {
        let [killed, known, new, unreached] = of_folder;
        println!("{folder}: {killed} killed, {known} known, {new} new, {unreached} not reached");
        all = std::array::from_fn(|column| all[column] + of_folder[column]);
    }
    let [killed, known, new, unreached] = all;
    let reached = killed + known + new;
    println!(
        "{} of {} mutants. Score: {killed} of {reached} reached are killed, {} %; {known} survive \
         with a reason, {new} without",
        reached + unreached,
        mutants.len(),
        100 * killed / reached.max(1)
    );
    std::process::exit(i32::from(new > 0));
}
