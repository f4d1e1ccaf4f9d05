//! Leaves out of the small, static agent what it never uses. Other builds (tests, other targets) are linked as usual.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind.ld");
    println!("cargo::rustc-check-cfg=cfg(small)");
    let set = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value.split(',').any(|word| word == wanted));
    // Of all profiles only `agent` has this level, and it aborts when it panics. (Cargo does not say how a profile panics.)
    let small = set("OPT_LEVEL", "z") && set("CARGO_CFG_TARGET_FEATURE", "crt-static");
    let linux = set("CARGO_CFG_TARGET_OS", "linux") && set("CARGO_CFG_TARGET_ENV", "gnu") && set("CARGO_CFG_TARGET_ARCH", "x86_64");
    if small && linux && links_with_lld() {
        let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        // The last one: src/small.rs has stand-ins for functions of libraries, and the first definition counts.
        for argument in ["--no-eh-frame-hdr", "--icf=all", &format!("-T,{dir}/no-unwind.ld"), "-z,muldefs"] {
            println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
        }
        println!("cargo::rustc-cfg=small");
    }
}

/// Since 1.90 the compiler links this target with its own lld, which knows these options.
fn links_with_lld() -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_default();
    let Ok(output) = Command::new(rustc).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split([' ', '.']).filter_map(|word| word.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(1), Some(minor)) if minor >= 90)
}
