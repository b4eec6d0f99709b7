//! `tradewind cert`: the overlay's CA and the relays' certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tradewind_proto::units::{PopId, ServiceName};

use super::{print, unix_seconds};
use crate::identity::{
    Issuer, Labels, NODE_DAYS, Subject, check_label, write_authority, write_node,
};

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Make the overlay's CA: DIR/ca.pem for every relay, DIR/ca.key for you alone
    #[command(after_help = "\
Keep ca.key off the relays: whoever has it can join the overlay under any name and labels.

Example:
  tradewind cert ca --out keys")]
    Ca {
        /// Where to write; made if it isn't there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a relay's certificate and key: DIR/ID.pem and DIR/ID.key
    #[command(after_help = "\
Policies judge relays by the region, country and provider in their certificates. A list of
services keeps the relay from advertising any other.

Examples:
  tradewind cert node --ca keys --id fra --region EU --country DE --provider hetzner --out keys
  tradewind cert node --ca keys --id edge-1 --service sfu-1 --service sfu-2 --out keys")]
    Node(NodeArgs),
}

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The directory with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The relay's name: a-z, 0-9 and -, at most 32 characters
    #[arg(long)]
    id: PopId,
    /// Its region, such as EU
    #[arg(long, value_parser = label)]
    region: Option<String>,
    /// Its country, such as DE
    #[arg(long, value_parser = label)]
    country: Option<String>,
    /// Whose machine it is, such as hetzner
    #[arg(long, value_parser = label)]
    provider: Option<String>,
    /// A service that it may advertise; may be repeated; none: any service
    #[arg(long, value_name = "NAME")]
    service: Vec<ServiceName>,
    /// For how many days it is valid
    #[arg(long, value_name = "N", default_value_t = NODE_DAYS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Where to write; made if it isn't there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn label(text: &str) -> Result<String, String> {
    check_label(text).map(|()| text.into())
}

pub(super) fn run(command: CertCommand) -> anyhow::Result<()> {
    let written = match command {
        CertCommand::Ca { out } => write_authority(&Issuer::generate(unix_seconds())?, &out)?,
        CertCommand::Node(args) => {
            let NodeArgs { ca, id, region, country, provider, service, days, out } = args;
            let labels = Labels { region, country, provider };
            let services = (!service.is_empty()).then_some(service);
            let subject = Subject { id, labels, services };
            let issued = Issuer::load(&ca)?.issue(&subject, unix_seconds(), days)?;
            write_node(&issued, subject.id.as_str(), &out)?
        }
    };
    let [certificate, key] = written;
    print(&format!("wrote {} and {}\n", certificate.display(), key.display()))
}
