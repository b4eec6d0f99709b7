//! A chain of relay processes on loopback: a tunnel at the first, a service at the last.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tradewind_relay::api::types::{Document, Status};

use super::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(2);

/// The relays of a chain, the ingress first.
pub struct Overlay {
    pub relays: Vec<Process>,
    pub admins: Vec<SocketAddr>,
    /// Where the chain takes packets.
    pub tunnel: SocketAddr,
    directory: PathBuf,
}

impl Overlay {
    /// Starts a relay for each of `names`, linked to the next one only, and waits until they work.
    pub fn start(binary: &Path, names: &[&str], service: SocketAddr) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!(
            "tradewind-load-{}-{}",
            std::process::id(),
            names.join("-")
        ));
        std::fs::create_dir_all(&directory)?;
        let tunnel = free_udp()?;
        let mut overlay =
            Self { relays: Vec::new(), admins: Vec::new(), tunnel, directory: directory.clone() };
        let cert = |args: &[&str]| {
            let mut command = Command::new(binary);
            command.arg("cert").args(args).arg("--out").arg(&directory);
            let output = command.output().context("tradewind can't be started")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        cert(&["ca"])?;
        let listens: Vec<_> = names.iter().map(|_| free_udp()).collect::<Result<_, _>>()?;
        for (at, name) in names.iter().enumerate() {
            let ca = directory.to_string_lossy();
            cert(&["node", "--ca", &ca, "--id", name])?;
            let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let mut text = format!(
                "[node]\nid = \"{name}\"\n[overlay]\nlisten = \"{}\"\nmesh = \"peers\"\n\
                 [identity]\nca = \"ca.pem\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\n\
                 [admin]\nlisten = \"{admin}\"\n[log]\nfilter = \"warn\"\n",
                listens[at]
            );
            if at == 0 {
                write!(text, "[[tunnel]]\nlisten = \"{tunnel}\"\nservice = \"sink\"\n")?;
            }
            if at == names.len() - 1 {
                write!(text, "[[service]]\nname = \"sink\"\ntarget = \"{service}\"\n")?;
            }
            if let Some(next) = listens.get(at + 1) {
                let peers = format!("mesh = \"peers\"\npeers = [\"{next}\"]\n");
                text = text.replace("mesh = \"peers\"\n", &peers);
            }
            let config = directory.join(format!("{name}.toml"));
            std::fs::write(&config, text)?;
            let mut command = Command::new(binary);
            command.arg("relay").arg("--config").arg(&config);
            overlay.relays.push(Process::start(name, &mut command)?);
            overlay.admins.push(admin);
        }
        overlay.wait_ready()?;
        Ok(overlay)
    }

    /// Waits until the first relay knows where the service is, and until that has settled.
    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            for relay in &mut self.relays {
                relay.check()?;
            }
            let url = format!("http://{}/api/v1/route?to=sink", self.admins[0]);
            if ureq::get(&url).call().is_ok() {
                std::thread::sleep(SETTLE);
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the relays did not find each other within {READY_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What relay number `at` says of itself.
    pub fn status(&self, at: usize) -> anyhow::Result<Status> {
        let url = format!("http://{}/api/v1/status", self.admins[at]);
        let document: Document<Status> = ureq::get(&url).call()?.body_mut().read_json()?;
        Ok(document.body)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.relays.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A local address that is free now.
pub fn free_udp() -> std::io::Result<SocketAddr> {
    UdpSocket::bind("127.0.0.1:0")?.local_addr()
}
