//! Folds functions whose machine code is the same: a tenth of the binary is copies of generic code, and a run keeps what
//! it touches of the binary in memory.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let target = variable("TARGET");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let is_default = target == "x86_64-unknown-linux-gnu" && !flags.contains("link");
    // the linker that Rust brings along for this target can fold; another may not know the word
    if variable("PROFILE") == "release" && is_default && has_linker(&variable("RUSTC"), &target) {
        // equal constants are left alone: the allocator tells its empty pages by their addresses
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// Whether this Rust has a linker of its own; a distribution's may not.
fn has_linker(rustc: &str, target: &str) -> bool {
    let Ok(told) = Command::new(rustc).args(["--print", "sysroot"]).output() else {
        return false;
    };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&told.stdout).trim());
    sysroot.join("lib/rustlib").join(target).join("bin/rust-lld").try_exists().unwrap_or(false)
}
