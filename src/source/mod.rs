//! Where records come from. For now a folder or bucket of files; its new files are found by listing it.

pub mod files;
