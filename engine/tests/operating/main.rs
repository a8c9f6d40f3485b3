//! What an operator does and sees: starts, settings, reloads, ends, the admin listener, the log and
//! ronctl.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod archives;
mod bundles;
mod cli;
mod debug;
mod files;
mod hang;
mod log;
mod many;
mod names;
mod reload;
mod restart;
mod startup;
mod storage_admin;
mod strangers;
