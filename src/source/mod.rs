//! Where records come from. For now a folder or bucket of files; its new files are found by listing it, or by following it.

pub mod entries;
pub mod files;
pub mod follow;
mod unpack;
mod watch;
