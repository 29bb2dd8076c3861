//! Parses the command line, runs one command, turns its error into an exit code.

// a command's future holds those of the engine, which are deeper than the compiler's default
#![recursion_limit = "256"]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use medallion::cli::{self, Cli, Command};

/// Columns are large and short-lived: glibc gives them back to the system at once and spends a third of a run on page
/// faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the allocator keeps what was freed, milliseconds. At first not at all, so that a small run does not hold the memory
/// of every hop at once; after [`SMALL_RUN`] longer, because asking for the same memory again and again costs time (a tenth
/// of a large run between 1 and 5 s). A stream stays for days beside other programs.
const PURGE_DELAY_MS: [std::ffi::c_long; 2] = [0, 5000];
const PURGE_DELAY_MS_OF_STREAM: std::ffi::c_long = 1000;

/// A run that lasts longer is not small.
const SMALL_RUN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    use_small_pages();
    give_memory_back(PURGE_DELAY_MS[0]);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap writes help to standard output and usage errors to standard error
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // blocking threads encode and touch files: a few per core keep both busy, hundreds would each keep memory
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(4 * threads)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: can't start the runtime: {error}");
            return ExitCode::from(70);
        }
    };
    let lasting_delay = match &cli.command {
        Command::Stream(_) => PURGE_DELAY_MS_OF_STREAM,
        _ => PURGE_DELAY_MS[1],
    };
    runtime.spawn(async move {
        tokio::time::sleep(SMALL_RUN).await;
        give_memory_back(lasting_delay);
    });
    let ended = runtime.block_on(cli::run(cli));
    // nothing that still runs is needed: what counts is committed
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// The allocator asks for huge pages, and each is resident whole once a byte of it is used: a third of a small run's
/// memory. Where the kernel knows no such switch nothing is lost.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate of ours wraps this call")]
fn use_small_pages() {
    // SAFETY: `PR_SET_THP_DISABLE` takes one flag and zeros, and touches no memory
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

#[cfg(not(target_os = "linux"))]
fn use_small_pages() {}

#[expect(unsafe_code, reason = "no crate of ours wraps this call")]
fn give_memory_back(after_ms: std::ffi::c_long) {
    /// `mi_option_purge_delay` of `mimalloc.h`; the crate names only some of the options.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number that the allocator reads when something is freed, and only where the environment
    // (`MIMALLOC_PURGE_DELAY`) has not said otherwise
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, after_ms) };
}
