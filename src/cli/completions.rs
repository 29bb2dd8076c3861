//! `medallion completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};
use crate::error::Result;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  medallion completions bash > ~/.local/share/bash-completion/completions/medallion"
)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "medallion", &mut script);
    output::print_text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
