//! Folds functions whose machine code is the same: a tenth of the binary is copies of generic code, and a run keeps what
//! it touches of the binary in memory.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    let profile = std::env::var("PROFILE").unwrap_or_default();
    // the linker that Rust brings along for this target can fold; what other targets have may not know the word
    if target == "x86_64-unknown-linux-gnu" && profile == "release" {
        // equal constants are left alone: the allocator tells its empty pages by their addresses
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
