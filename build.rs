//! Chooses the backend once, so that the sources never list operating systems. The script sets:
//!
//! | cfg | condition |
//! |---|---|
//! | `epoll`, `kqueue` | the backend: exactly one of the two |
//! | `linux` | the Linux kernel, also under Android |
//! | `apple` | macOS and the other systems of Apple |
//! | `in_place` | Linux on x86_64, where some syscalls are faster without libc |
//! | `flat` | a kqueue that no poller can wait for, see below |
//! | `symmetric` | no `membarrier` in `src/sys/fence.rs`: `POLLMUX_FENCES=symmetric`, for tests |
//! | `in_repository` | `tests/support` exists: without it, as in a package, the tests are empty |
//!
//! On Linux `POLLMUX_BACKEND=kqueue` chooses a kqueue from a shared library. The library is
//! `libkqueue.so` in the folder `POLLMUX_LIBKQUEUE_DIR` (an absolute path), or else the one that
//! pkg-config knows.
//!
//! The libkqueue of the distributions is `flat`: no poller can wait for its kqueues. Then wakers
//! are pipes, and these tests are left out:
//!
//! - tests that wait for a kqueue;
//! - tests that count fds, because libkqueue has fds of its own;
//! - tests that change a kqueue while another thread waits, which libkqueue cannot before 2.7.
//!
//! A library is not flat if it exports `kqueue_nests`, as the one under `tests/` does, or if
//! `POLLMUX_KQUEUE_NESTS=yes` is set.

use std::env;
use std::path::Path;
use std::process::Command;

const APPLE: [&str; 5] = ["macos", "ios", "tvos", "watchos", "visionos"];
const BSD: [&str; 4] = ["freebsd", "netbsd", "openbsd", "dragonfly"];
const LINUX: [&str; 2] = ["linux", "android"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let all =
        ["epoll", "kqueue", "linux", "apple", "in_place", "flat", "symmetric", "in_repository"];
    for cfg in all {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
    }
    if Path::new("tests/support").exists() {
        println!("cargo::rustc-cfg=in_repository");
    }
    if let Err(error) = choose() {
        println!("cargo::error={error}");
    }
}

fn choose() -> Result<(), String> {
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let (linux, apple) = (LINUX.contains(&os.as_str()), APPLE.contains(&os.as_str()));
    if linux {
        println!("cargo::rustc-cfg=linux");
    } else if apple {
        println!("cargo::rustc-cfg=apple");
    } else if !BSD.contains(&os.as_str()) {
        return Err(format!("pollmux runs on Linux, Android, the BSDs and macOS, not on {os}"));
    }
    // Android's filter of syscalls allows only the calls of its libc. Miri supports no direct
    // calls.
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if os == "linux"
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_POINTER_WIDTH", "64")
        && env::var_os("CARGO_CFG_MIRI").is_none()
    {
        println!("cargo::rustc-cfg=in_place");
    }
    let atomics = env::var("CARGO_CFG_TARGET_HAS_ATOMIC").unwrap_or_default();
    if !atomics.split(',').any(|bits| bits == "64") {
        let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
        return Err(format!(
            "pollmux needs 64-bit atomics, which this target ({arch}) does not have"
        ));
    }
    match setting("POLLMUX_FENCES").as_deref() {
        None => {}
        Some("symmetric") => println!("cargo::rustc-cfg=symmetric"),
        Some(other) => {
            return Err(format!("POLLMUX_FENCES={other}: it may be symmetric, or unset"));
        }
    }
    let native = if linux { "epoll" } else { "kqueue" };
    let backend = setting("POLLMUX_BACKEND").unwrap_or_else(|| native.into());
    match backend.as_str() {
        "epoll" if linux => println!("cargo::rustc-cfg=epoll"),
        "kqueue" => println!("cargo::rustc-cfg=kqueue"),
        "epoll" => return Err(format!("POLLMUX_BACKEND=epoll: there is no epoll on {os}")),
        other => {
            return Err(format!(
                "POLLMUX_BACKEND={other} is no backend: it may be epoll or kqueue"
            ));
        }
    }
    if linux && backend == "kqueue" {
        link_libkqueue()?;
    }
    Ok(())
}

/// Returns an environment variable of this script. An empty one counts as unset.
fn setting(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn link_libkqueue() -> Result<(), String> {
    if let Some(folder) = setting("POLLMUX_LIBKQUEUE_DIR") {
        if !Path::new(&folder).is_absolute() {
            // This script, the linker and the program run in different folders.
            return Err(format!(
                "POLLMUX_LIBKQUEUE_DIR={folder} is relative: it must be an absolute path"
            ));
        }
        let library = Path::new(&folder).join("libkqueue.so");
        println!("cargo::rerun-if-changed={}", library.display());
        if !library.exists() {
            return Err(format!("POLLMUX_LIBKQUEUE_DIR={folder} has no libkqueue.so"));
        }
        println!("cargo::rustc-link-search=native={folder}");
        // The rpath is for this package's own tests and examples.
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        println!("cargo::rustc-link-lib=dylib=kqueue");
        return nests(&library);
    }
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    for flag in pkg_config("--libs")?.split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={folder}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
    }
    nests(&Path::new(pkg_config("--variable=libdir")?.trim()).join("libkqueue.so"))
}

/// Asks pkg-config for a property of libkqueue.
fn pkg_config(asked: &str) -> Result<String, String> {
    match Command::new("pkg-config").args([asked, "libkqueue"]).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
            Err(format!("POLLMUX_BACKEND=kqueue needs libkqueue or POLLMUX_LIBKQUEUE_DIR: {said}"))
        }
        Err(error) => Err(format!(
            "POLLMUX_BACKEND=kqueue needs pkg-config or POLLMUX_LIBKQUEUE_DIR: {error}"
        )),
    }
}

/// Sets the cfg `flat` if no poller can wait for the library's kqueues.
fn nests(library: &Path) -> Result<(), String> {
    let nests = match setting("POLLMUX_KQUEUE_NESTS").as_deref() {
        Some("yes") => true,
        Some("no") => false,
        Some(other) => return Err(format!("POLLMUX_KQUEUE_NESTS={other}: it may be yes or no")),
        None => {
            let name = b"\0kqueue_nests\0"; // in the table of names
            std::fs::read(library)
                .is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name))
        }
    };
    if !nests {
        println!("cargo::rustc-cfg=flat");
    }
    Ok(())
}
