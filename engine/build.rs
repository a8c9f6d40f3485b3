//! Gives the binaries the commit they were built from.
//!
//! A build outside of a checkout, or without git, takes the commit from `RON_COMMIT`; else it
//! is unknown.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=RON_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("RON_COMMIT").ok().filter(|given| !given.is_empty());
    let commit = given.or_else(|| {
        // What changes with a commit, a checkout and a branch that moves.
        for path in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", path])
                && Path::new(&path).exists()
            {
                println!("cargo::rerun-if-changed={path}");
            }
        }
        git(&["describe", "--always", "--dirty", "--tags", "--abbrev=12"])
    });
    println!("cargo::rustc-env=RON_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// What git says on its first line, if it says anything.
fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    let line = String::from_utf8(out.stdout).ok()?.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
