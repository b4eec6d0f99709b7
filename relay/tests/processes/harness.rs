//! An overlay of relay processes on loopback, in a directory of its own.
//!
//! Everything goes away with the [`Overlay`]: processes, files, ports. If the test fails, the
//! relays' logs are shown first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tradewind_relay::api::types::{Document, Flows, Links, Route, Services};

/// What a busy machine may need for anything that takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The first port used: below the range from which the kernel gives ports away.
const FIRST_PORT: u16 = 20_000;
/// The ports of one overlay, and how many overlays fit.
const BLOCK: u16 = 64;
const BLOCKS: u32 = 190;

/// Waits until `condition` holds; `what` it was is told if it doesn't in time.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// The same within another time.
#[track_caller]
pub fn wait_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a relay's configuration says beyond its name, files and ports.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    /// `node.id` and the certificate, where it is not the relay's name in the test.
    pub id: Option<&'a str>,
    /// `overlay.peers`, by name or address.
    pub peers: &'a [&'a str],
    /// More lines of `[overlay]`.
    pub overlay: &'a str,
    /// Tunnels, services and policies.
    pub edges: &'a str,
}

/// The ports of a relay.
#[derive(Clone, Copy)]
struct Ports {
    overlay: u16,
    admin: u16,
}

/// Relay processes, their files and ports.
pub struct Overlay {
    host: IpAddr,
    directory: PathBuf,
    /// Held for as long as the block of ports behind it is used.
    _block: TcpListener,
    ports: std::ops::Range<u16>,
    known: BTreeMap<String, Ports>,
    running: BTreeMap<String, Child>,
    agent: ureq::Agent,
}

impl Overlay {
    /// An overlay of no relays, with a CA.
    pub fn new() -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same whose relays listen on `host`.
    pub fn on(host: IpAddr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tradewind-{pid}-{count}"));
        fs::create_dir_all(&directory).unwrap();
        let (block, ports) = block_of_ports(pid.wrapping_add(count.wrapping_mul(7)));
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .http_status_as_error(false)
            .build();
        let overlay = Self {
            host,
            directory,
            _block: block,
            ports,
            known: BTreeMap::new(),
            running: BTreeMap::new(),
            agent: agent.into(),
        };
        overlay.succeed(&["cert", "ca", "--out", overlay.directory.to_str().unwrap()]);
        overlay
    }

    /// Where the certificates and configurations are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A port that nobody has, neither for UDP nor for TCP.
    pub fn port(&mut self) -> u16 {
        self.ports.find(|&port| is_free(port)).expect("no free port is left")
    }

    fn ports_of(&mut self, name: &str) -> Ports {
        if let Some(&ports) = self.known.get(name) {
            return ports;
        }
        let ports = Ports { overlay: self.port(), admin: self.port() };
        self.known.insert(name.to_owned(), ports);
        ports
    }

    /// Where a relay receives QUIC.
    pub fn overlay_address(&mut self, name: &str) -> SocketAddr {
        (self.host, self.ports_of(name).overlay).into()
    }

    /// Where a relay serves HTTP.
    pub fn api(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.known[name].admin)
    }

    /// Makes a relay's certificate, with more arguments of `tradewind cert node`.
    pub fn certify(&self, name: &str, arguments: &[&str]) {
        let directory = self.directory.to_str().unwrap();
        let node = ["cert", "node", "--ca", directory, "--out", directory, "--id", name];
        self.succeed(&[&node, arguments].concat());
    }

    /// Writes a relay's configuration; returns its path.
    pub fn configure(&mut self, name: &str, setup: Setup<'_>) -> PathBuf {
        let Setup { id, peers, overlay, edges } = setup;
        let id = id.unwrap_or(name);
        let (listen, admin) = (self.overlay_address(name), self.ports_of(name).admin);
        let address = |peer: &&str| match peer.contains(':') {
            true => peer.to_string(),
            false => self.overlay_address(peer).to_string(),
        };
        let peers: Vec<_> = peers.iter().map(address).collect();
        let text = format!(
            "[node]\nid = \"{id}\"\n\
             [overlay]\nlisten = \"{listen}\"\npeers = {peers:?}\n{overlay}\n\
             [identity]\nca = \"ca.pem\"\ncert = \"{id}.pem\"\nkey = \"{id}.key\"\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n{edges}\n"
        );
        let path = self.directory.join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// Makes certificate and configuration of a relay and starts it.
    pub fn add(&mut self, name: &str, setup: Setup<'_>) {
        self.certify(name, &[]);
        self.configure(name, setup);
        self.start(name);
    }

    /// Starts a relay that is configured.
    pub fn start(&mut self, name: &str) {
        let config = self.directory.join(format!("{name}.toml"));
        let child = self.spawn(name, &config);
        assert!(self.running.insert(name.to_owned(), child).is_none(), "{name} runs already");
    }

    /// Starts a relay process that logs to `NAME.log`.
    pub fn spawn(&self, name: &str, config: &Path) -> Child {
        let log = File::options().create(true).append(true).open(self.log_file(name)).unwrap();
        let mut command = tradewind(&["relay", "--config", config.to_str().unwrap()]);
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// What a relay logged so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// Waits until a relay has logged `text`.
    #[track_caller]
    pub fn wait_for_log(&self, name: &str, text: &str) {
        wait_for(&format!("{name} logs {text:?}"), || self.log(name).contains(text));
    }

    /// Waits until relays say that they are ready.
    #[track_caller]
    pub fn wait_ready(&self, names: &[&str]) {
        for name in names {
            let url = format!("{}/readyz", self.api(name));
            wait_for(&format!("{name} is ready"), || {
                self.agent.get(&url).call().is_ok_and(|answer| answer.status() == 200)
            });
        }
    }

    /// Waits until `from` has a way to `to`, and back.
    #[track_caller]
    pub fn wait_route(&self, from: &str, to: &str) {
        for (from, to) in [(from, to), (to, from)] {
            wait_for(&format!("{from} has a route to {to}"), || {
                self.route(from, to).is_some_and(|route| route.primary.is_some())
            });
        }
    }

    /// Waits until `at` can reach an instance of `service`.
    #[track_caller]
    pub fn wait_service(&self, at: &str, service: &str) {
        wait_for(&format!("{at} reaches {service}"), || {
            let services = self.get::<Services>(at, "services").map_or(vec![], |it| it.services);
            let mut instances =
                services.iter().filter(|it| it.name == service).flat_map(|it| &it.instances);
            instances.any(|instance| instance.delay_ms.is_some())
        });
    }

    /// Kills a relay with SIGKILL.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal by name, such as `HUP`.
    pub fn signal(&self, name: &str, signal: &str) {
        let pid = self.running[name].id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {signal} {pid}: {sent}");
    }

    /// Waits until a relay ends by itself, and how it did.
    #[track_caller]
    pub fn wait_end(&mut self, name: &str) -> ExitStatus {
        let mut child = self.running.remove(name).expect("it runs");
        wait_end(name, &mut child)
    }

    /// Whether a relay still runs.
    pub fn runs(&mut self, name: &str) -> bool {
        let child = self.running.get_mut(name);
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// A document of a relay's `/api/v1`.
    pub fn get<T: DeserializeOwned>(&self, name: &str, page: &str) -> Option<T> {
        let url = format!("{}/api/v1/{page}", self.api(name));
        let text = self.agent.get(&url).call().ok()?.body_mut().read_to_string().ok()?;
        serde_json::from_str::<Document<T>>(&text).ok().map(|document| document.body)
    }

    /// The route of one relay to another, or to a service.
    pub fn route(&self, at: &str, to: &str) -> Option<Route> {
        self.get(at, &format!("route?to={to}"))
    }

    /// A relay's flows.
    pub fn flows(&self, at: &str) -> Flows {
        self.get(at, "flows").expect("the relay answers")
    }

    /// The state of a relay's link to another; empty: there is none.
    pub fn link_state(&self, at: &str, to: &str) -> String {
        let links = self.get::<Links>(at, "links").map_or(vec![], |it| it.links);
        let link = links.into_iter().find(|link| link.neighbour == to);
        link.map_or(String::new(), |link| link.state)
    }

    /// The sum of a metric's samples whose line contains `label`.
    pub fn metric(&self, at: &str, name: &str, label: &str) -> f64 {
        let url = format!("{}/metrics", self.api(at));
        let mut answer = self.agent.get(&url).call().expect("the relay answers");
        let text = answer.body_mut().read_to_string().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Runs `tradewind` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        tradewind(arguments).current_dir(&self.directory).output().unwrap()
    }

    /// Asks a relay by the command line.
    pub fn ask(&self, at: &str, arguments: &[&str]) -> Output {
        let api = self.api(at);
        self.run(&[arguments, &["--api", &api]].concat())
    }

    fn succeed(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// What there is to know after a failure.
    fn show(&self) {
        for name in self.known.keys() {
            eprintln!("---- log of {name}\n{}", self.log(name));
        }
        for name in self.running.keys() {
            for page in ["links", "routes", "flows"] {
                let output = self.ask(name, &[page, "--json"]);
                eprintln!("---- {page} of {name}\n{}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Waits until a process ends by itself, and how it did; if it doesn't, it is killed.
#[track_caller]
pub fn wait_end(name: &str, child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{name} did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a command wrote to its standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The command, without the settings of whoever runs the tests.
fn tradewind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("TRADEWIND_") {
            command.env_remove(key);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A block of ports that no other process of these tests uses: whoever listens on a block's first
/// port has it. Every process begins to search elsewhere.
fn block_of_ports(start: u32) -> (TcpListener, std::ops::Range<u16>) {
    for block in (0..BLOCKS).map(|step| (start.wrapping_add(step) % BLOCKS) as u16) {
        let first = FIRST_PORT + block * BLOCK;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
            return (listener, first + 1..first + BLOCK);
        }
    }
    panic!("no block of free ports");
}

fn is_free(port: u16) -> bool {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
        && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
