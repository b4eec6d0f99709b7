//! Load for real relays on this machine: `soak` watches that they stay flat, `relay-cost` compares
//! a relay in the middle with a bare quinn one. `scripts/soak` and `scripts/bench-relay` call it.
#![allow(clippy::disallowed_methods, reason = "this is no machine: it measures by the clock")]

mod bare;
mod cost;
mod overlay;
mod process;
mod soak;
mod stream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The bare relay is to have the daemon's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Puts load on real relay processes on this machine", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Many short flows for a long time: do memory and descriptors of the relays stay flat?
    Soak(soak::Args),
    /// What a relay in the middle costs per packet, beside a bare quinn relay.
    RelayCost(cost::Args),
    /// One process of the bare chain (used by relay-cost).
    #[command(hide = true)]
    Bare(bare::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Soak(args) => soak::run(&args),
        Command::RelayCost(args) => cost::run(&args),
        Command::Bare(args) => bare::run(&args).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
