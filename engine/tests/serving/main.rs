//! What clients are served, over every wire: answers, bytes, limits, and peers that misbehave.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod blocks;
mod bundles;
mod clauses;
mod conns;
mod delete;
mod doors;
mod hostile;
mod http;
mod idle;
mod integrity;
mod lent;
mod nginx;
mod oap;
mod objects;
mod proxies;
mod ranges;
mod readers;
mod tls;
