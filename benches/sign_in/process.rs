//! A server process, and what the kernel says of it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// The product, built with the profile of this bench.
pub const PAIRGATE: &str = env!("CARGO_BIN_EXE_pairgate");

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
    /// Kept open: a server that prints must not find it closed.
    _stdout: BufReader<ChildStdout>,
    /// `127.0.0.1:port`.
    pub authority: String,
    /// The same of the side for client certificates; empty without TLS.
    pub mtls: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `pairgate serve` on a data directory.
    pub fn product(data: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(PAIRGATE);
        command.current_dir(data).arg("--data").arg(data).args(["serve", "--listen", "127.0.0.1:0"]);
        Self::start(command)
    }

    /// The control on the same kind of data directory.
    pub fn control(data: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--control").arg(data);
        Self::start(command)
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        let authority =
            address.and_then(|address| address.split_once("://")).map(|(_, authority)| authority.to_owned());
        let mut mtls = String::new();
        if line.contains("https://") {
            stdout.read_line(&mut mtls)?;
            mtls = mtls.trim().rsplit('/').next().unwrap_or_default().to_owned();
        }
        let mut server = Self { child, _stdout: stdout, authority: String::new(), mtls };
        server.authority = authority.with_context(|| format!("the server did not start; it said {line:?}"))?;
        Ok(server)
    }

    /// The issuer.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// CPU time of all its threads so far, user and system.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).context("/proc is needed (Linux)")?;
        let mut nanoseconds = 0;
        for task in tasks {
            // The first field: time on a CPU, in nanoseconds (Documentation/scheduler/sched-stats.rst of Linux).
            let text =
                std::fs::read_to_string(task?.path().join("schedstat")).context("the kernel has no schedstat")?;
            nanoseconds += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}
