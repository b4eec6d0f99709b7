//! The `tradewind` command: the daemon's front door, and the operator's view of a running relay.
//!
//! Everything that asks a relay goes through its public `/api/v1`, nothing through a back door.
//! With `--json` the relay's document is printed as it came; otherwise tables for people.

mod ask;
mod cert;
mod client;
mod explain;
mod tables;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{ConfigError, Source};

const ABOUT: &str =
    "Tradewind carries other programs' UDP over the fastest allowed path between relays.";

const EXAMPLES: &str = "\
Examples:
  tradewind cert ca --out keys                         make the overlay's CA
  tradewind cert node --ca keys --id fra --out keys    make a relay's certificate
  tradewind check --config fra.toml                    is the configuration good?
  tradewind relay --config fra.toml                    run the relay
  tradewind links                                      what it measures
  tradewind route sgp --explain                        how packets get to sgp, and why

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "tradewind", version, about = ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a relay until it is told to stop
    #[command(after_help = "\
SIGHUP reads the configuration again (tunnels, services, policies, peers); SIGTERM leaves.

Examples:
  tradewind relay --config /etc/tradewind/fra.toml
  TRADEWIND_LOG__FILTER=debug tradewind relay --config fra.toml
  tradewind relay --config fra.toml --set overlay.listen=127.0.0.1:7500")]
    Relay(ConfigArgs),
    /// Check a configuration and its certificates, and print it with defaults filled in
    #[command(after_help = "\
Nothing is started. The certificate files are read too: do they belong together, are they in
force, do they name this relay?

Examples:
  tradewind check --config fra.toml
  tradewind check --config fra.toml > complete.toml")]
    Check(ConfigArgs),
    /// Make the overlay's CA, or the certificate of a relay
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Who the relay is and how it is
    #[command(after_help = "Example:\n  tradewind status --api http://10.0.0.5:7480")]
    Status(ApiArgs),
    /// The relay's links: state, delay, loss, rates
    #[command(after_help = "\
tx is from this relay to the neighbour, rx the other way; losses are before repair.

Examples:
  tradewind links
  tradewind links --json | jq '.links[] | {neighbour, rtt_ms, loss_tx}'")]
    Links(ApiArgs),
    /// The paths in use from this relay to all others
    #[command(after_help = "Examples:\n  tradewind routes\n  tradewind routes --policy eu-only")]
    Routes {
        /// Only those under this policy
        #[arg(long)]
        policy: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// The route from this relay to a PoP or a service, and why
    #[command(after_help = "\
Examples:
  tradewind route sgp
  tradewind route sfu-mad --policy eu-only --explain
  tradewind route sfu-mad@mad")]
    Route {
        #[command(flatten)]
        to: DestinationArgs,
        /// Say why: what each link costs, which other paths there are, what a policy excludes
        #[arg(long)]
        explain: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// The flows that enter or leave the overlay at this relay
    #[command(after_help = "Examples:\n  tradewind flows\n  tradewind flows --limit 10000 --json")]
    Flows {
        /// Show at most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// The services in the overlay, and the relays by which they are reached
    #[command(after_help = "Example:\n  tradewind services")]
    Services(ApiArgs),
    /// Real packets to every relay on the way: delay and loss per hop
    #[command(after_help = "Examples:\n  tradewind trace sgp\n  tradewind trace sfu-mad -c 50")]
    Trace {
        #[command(flatten)]
        to: DestinationArgs,
        /// Packets to each relay, at most 100
        #[arg(short = 'c', long = "count", value_name = "N", default_value_t = 10)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
        count: u16,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Round trips through the overlay, one a second
    #[command(after_help = "\
Exit status 1 if nothing came back.

Examples:
  tradewind ping sgp
  tradewind ping sgp -c 20 --policy eu-only")]
    Ping {
        #[command(flatten)]
        to: DestinationArgs,
        /// How many
        #[arg(short = 'c', long = "count", value_name = "N", default_value_t = 4)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// The overlay as this relay knows it, as a world file for tradewind-sim
    #[command(after_help = "\
Examples:
  tradewind export > world.toml
  tradewind export --json > snapshot.json")]
    Export(ApiArgs),
    /// Completions for a shell, to its standard output
    #[command(after_help = "\
Example:
  tradewind completions bash > ~/.local/share/bash-completion/completions/tradewind")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,
    /// Override a setting, such as overlay.listen=0.0.0.0:7400; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct ApiArgs {
    /// Where the relay's admin API is
    #[arg(long, value_name = "URL", env = "TRADEWIND_API", default_value = client::DEFAULT_API)]
    api: String,
    /// Print the relay's JSON document instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DestinationArgs {
    /// A PoP, a service, or service@pop
    #[arg(value_name = "DST")]
    to: String,
    /// The policy that binds the packets
    #[arg(long)]
    policy: Option<String>,
}

/// Parses the command line, does it, and says with which status to exit. `run` runs a relay until
/// it is told to stop.
pub fn main(run: fn(Source) -> anyhow::Result<()>) -> ExitCode {
    match dispatch(Cli::parse().command, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tradewind: {error:#}");
            ExitCode::from(status(&error))
        }
    }
}

/// 2 if the user wrote something wrong, 1 if something failed.
fn status(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<ConfigError>()) { 2 } else { 1 }
}

fn dispatch(command: Command, run: fn(Source) -> anyhow::Result<()>) -> anyhow::Result<()> {
    match command {
        Command::Relay(ConfigArgs { config, set }) => run(Source::new(&config, &set)?),
        Command::Check(ConfigArgs { config, set }) => check(&Source::new(&config, &set)?),
        Command::Cert(command) => cert::run(command),
        Command::Status(api) => ask::status(&api),
        Command::Links(api) => ask::links(&api),
        Command::Routes { policy, api } => ask::routes(&api, policy.as_deref()),
        Command::Route { to, explain, api } => ask::route(&api, &to, explain),
        Command::Flows { limit, api } => ask::flows(&api, limit),
        Command::Services(api) => ask::services(&api),
        Command::Trace { to, count, api } => ask::trace(&api, &to, count),
        Command::Ping { to, count, api } => ask::ping(&api, &to, count),
        Command::Export(api) => ask::export(&api),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tradewind", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

fn check(source: &Source) -> anyhow::Result<()> {
    let config = source.load()?;
    config.load_identity(unix_seconds())?;
    print(&config.to_toml())
}

#[expect(clippy::disallowed_methods, reason = "the command line is the border: it reads the clock")]
fn unix_seconds() -> u64 {
    // A clock before 1970 makes every certificate "not valid yet", which says what to do.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Writes to standard output. Whoever reads may stop reading (`| head`): that is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}
