//! The engine from outside: the binary, on folders, as people run it. One module per claim; the names of the tests are
//! the claims.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so")]

mod authority;
mod browser;
mod cassandra;
mod data;
mod mini;
mod proxy;
mod receiver;
mod standin;
mod support;

mod alerts;
mod astra;
mod balance;
mod beside;
mod checks;
mod cli;
mod conformance;
mod crash;
mod doctor;
mod durability;
mod gate;
mod idempotence;
mod interventions;
mod landing;
mod lineage;
mod maintain;
mod object_stores;
mod openlineage;
mod oracle;
mod order;
mod otlp;
mod project;
mod readers;
mod rerun;
mod sensors;
mod services;
mod serving;
mod serving_answers;
mod serving_schema;
mod serving_tls;
mod serving_trouble;
mod site;
mod stream;
mod two_runs;
