//! The chain to compare with: the same QUIC, and nothing else. `read_datagram` -> `send_datagram` in
//! the middle, plain UDP at the ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tradewind_relay::config::IdentityFiles;
use tradewind_relay::identity::{Identity, SERVER_NAME};
use tradewind_relay::quic::{DEFAULT_MTU, Quic};

use super::overlay::free_udp;
use super::process::Process;

const BUFFER: usize = 4 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// Directory with ca.pem, bare.pem and bare.key
    #[arg(long)]
    identity: PathBuf,
    /// Take packets from UDP at this address
    #[arg(long)]
    from_udp: Option<SocketAddr>,
    /// Take packets from a QUIC connection to this address
    #[arg(long)]
    from_quic: Option<SocketAddr>,
    /// Give packets to UDP
    #[arg(long)]
    to_udp: Option<SocketAddr>,
    /// Give packets to QUIC
    #[arg(long)]
    to_quic: Option<SocketAddr>,
}

/// A chain of bare processes.
pub struct Chain {
    pub hops: Vec<Process>,
    /// Where the chain takes packets.
    pub entry: SocketAddr,
    directory: PathBuf,
}

impl Chain {
    /// `hops` processes from a UDP port to `sink`.
    pub fn start(binary: &Path, hops: usize, sink: SocketAddr) -> anyhow::Result<Self> {
        let name = format!("tradewind-bare-{}-{hops}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)?;
        let mut chain = Self { hops: Vec::new(), entry: free_udp()?, directory };
        for of in [&["ca"][..], &["node", "--id", "bare", "--ca"]] {
            let mut command = Command::new(binary);
            command.arg("cert").args(of);
            if of.len() > 1 {
                command.arg(&chain.directory);
            }
            let output = command.arg("--out").arg(&chain.directory).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // From the end: each dials the next, which must listen by then.
        let mut next = sink;
        for at in (0..hops).rev() {
            let own = if at == 0 { chain.entry } else { free_udp()? };
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("bare").arg("--identity").arg(&chain.directory);
            command.arg(if at == 0 { "--from-udp" } else { "--from-quic" }).arg(own.to_string());
            command.arg(if at == hops - 1 { "--to-udp" } else { "--to-quic" });
            let hop = Process::start(&format!("bare {at}"), command.arg(next.to_string()))?;
            chain.hops.push(hop);
            next = own;
        }
        chain.hops.reverse();
        Ok(chain)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.hops.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// One process of the chain.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, forward(args))
}

async fn forward(args: &Args) -> anyhow::Result<()> {
    let files = IdentityFiles::new(
        args.identity.join("ca.pem"),
        args.identity.join("bare.pem"),
        args.identity.join("bare.key"),
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let identity = Identity::load(&files, now)?;
    let (client, server) = (identity.client_config()?, identity.server_config()?);
    let quic = Quic::new(Arc::new(client), Arc::new(server), DEFAULT_MTU)?;
    let listen = args.from_quic.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some((*quic.server).clone()),
        bind(listen)?,
        Arc::new(TokioRuntime),
    )?;
    let onward = match args.to_quic {
        Some(to) => Some(dial(&endpoint, &quic, to).await?),
        None => None,
    };
    match (args.from_udp, onward, args.to_udp) {
        (Some(from), Some(onward), _) => {
            let socket = UdpSocket::from_std(bind(from)?)?;
            let mut packet = vec![0; 65_536];
            loop {
                let len = socket.recv(&mut packet).await?;
                onward.send_datagram(bytes::Bytes::copy_from_slice(&packet[..len]))?;
            }
        }
        (None, Some(onward), _) => {
            let incoming = endpoint.accept().await.context("the endpoint closed")?.await?;
            loop {
                onward.send_datagram(incoming.read_datagram().await?)?;
            }
        }
        (None, None, Some(to)) => {
            let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            socket.connect(to)?;
            let incoming = endpoint.accept().await.context("the endpoint closed")?.await?;
            loop {
                let _ = socket.send(&incoming.read_datagram().await?);
            }
        }
        _ => anyhow::bail!("a process of the chain takes from one side and gives to the other"),
    }
}

/// The next process may still be starting.
async fn dial(endpoint: &Endpoint, quic: &Quic, to: SocketAddr) -> anyhow::Result<Connection> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let attempt = endpoint.connect_with(quic.client.clone(), to, SERVER_NAME)?;
        match tokio::time::timeout(Duration::from_millis(500), attempt).await {
            Ok(Ok(connection)) => return Ok(connection),
            outcome if Instant::now() > until => {
                anyhow::bail!("the next process does not answer: {outcome:?}")
            }
            _ => {}
        }
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
