//! `medallion`: a lakehouse ETL engine. Files land; the engine moves them through zones of Delta tables and proves that
//! nothing was lost on the way.
//!
//! ```text
//!  landing ──decode──▶ bronze ──one row per key──▶ silver ──SQL──▶ gold ──▶ questions
//!     │ files           │ every typed record        │ clean, enriched  │ marts
//!     │ written ahead   │ append only               │ by partition     │ by partition
//!     ▼                 ▼                           ▼                  ▼
//!  ledger.files     quarantine: what was refused, why, and its raw bytes      ledger: runs, balances
//! ```
//!
//! Invariants, each with its test:
//! - every landed record is accepted, a duplicate, superseded or quarantined, and the balance shows it ([`flow::balance`]);
//! - results are a function of what landed: order, splitting, reruns and crashes change nothing ([`flow`]);
//! - a hop is one commit that carries the input version it consumed ([`lake::commit`]);
//! - no table, column or rule of a domain is known here ([`project`]).
//!
//! The modules, in the order in which data meets them: [`project`] (what is declared), [`source`] and [`decode`] (files to
//! typed rows), [`flow`] (the hops), [`engine`] (one SQL query), [`lake`] (Delta tables), [`ledger`] (what runs did),
//! [`trigger`] (when), [`cli`] (who asks).

#![forbid(unsafe_code)]

pub mod cli;
// parse, validate
pub mod project;
pub mod type_name;
pub mod zone;
// from files to rows
pub mod source;
// and from their bytes to typed rows
pub mod decode;
// the hops
pub mod flow;
// what they stand on
pub mod engine;
pub mod lake;
pub mod ledger;
// where questions are answered
pub mod store;
// who is told
pub mod notify;
// landing data out of nothing
pub mod generate;
// when
pub mod trigger;
// shared
pub mod error;
pub mod failpoint;
pub mod telemetry;
