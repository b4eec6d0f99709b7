//! Child processes, and what the kernel says of them (Linux).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// A child that ends with its handle.
pub struct Process {
    pub name: String,
    child: Child,
}

/// What a process holds at one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    pub rss_bytes: u64,
    pub descriptors: usize,
}

impl Process {
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self {
            name: name.to_owned(),
            child: child.with_context(|| format!("{name} can't be started ({command:?})"))?,
        })
    }

    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended by itself: {status}", self.name),
            None => Ok(()),
        }
    }

    pub fn held(&self) -> anyhow::Result<Held> {
        let proc = self.proc();
        let status = std::fs::read_to_string(proc.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
        Ok(Held {
            rss_bytes: rss.parse::<u64>()? << 10,
            descriptors: std::fs::read_dir(proc.join("fd"))?.count(),
        })
    }

    /// CPU time of all its threads so far, in nanoseconds.
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut total = 0;
        for task in std::fs::read_dir(self.proc().join("task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let spent = text.split_whitespace().next().context("schedstat is empty")?;
            total += spent.parse::<u64>()?;
        }
        Ok(total)
    }

    fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `tradewind` that was built beside this program, unless another is named.
pub fn tradewind(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe()?;
            let target = own.parent().and_then(|examples| examples.parent());
            target.context("this program has no directory")?.join("tradewind")
        }
    };
    if !path.exists() {
        bail!("{} is missing: build it with `cargo build --release`", path.display());
    }
    Ok(path)
}

pub fn median<T: PartialOrd + Copy + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
