//! Chooses the backend once, so that the sources never list operating systems: `cfg(epoll)` is set here and read in
//! `src/sys/mod.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(epoll)");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(os.as_str(), "linux" | "android") {
        println!("cargo::rustc-cfg=epoll");
    }
}
