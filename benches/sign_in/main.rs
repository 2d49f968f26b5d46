//! What a sign-in costs, measured on the real program: over loopback sockets, with real signatures, on SQLite on disk.
//!
//! `cargo bench --bench sign_in` prints one table. Options, after `--`: `--quick` (fewer rounds, a smaller large registry, fewer grants),
//! `--devices N` (size of the large registry, otherwise 1,000,000), `--rounds N`, and for a profiler `--only polls`, `codes`, `sign-ins`, `tls` or `memory`
//! (`polls` includes the codes that are polled).
//!
//! # How to read the table
//!
//! Each **product** figure is the CPU time of a `pairgate serve` process, user and system, divided by the requests that it answered: the median of
//! several rounds. CPU time and not elapsed time, because the load generator runs on the same cores. Beside it stands a **control** (`control.rs`):
//! another process behind the same accept loop that gets the same requests and does only what can't be avoided. The two take turns, round by round,
//! so that whatever else the machine does hits both. The **ratio** is what the product adds: compare that, not microseconds, between machines.
//!
//! | row | product | control |
//! | --- | --- | --- |
//! | pending poll | `POST /token`, the first poll of a pending code | 1 ES256 verification, 1 read by a unique text index |
//! | device_authorization | `POST /device_authorization`, with its audit record | 1 verification, 1 durable insert under group commit |
//! | poll over TLS, by proof or by certificate | `POST /token` | `GET /jwks` of the same server, over the same kind of connection |
//! | complete sign-in | code, two polls and the four requests of an approver in front of the pages | 7 requests: 3 verifications, 1 signature, 5 reads, 4 durable inserts |
//!
//! Devices are registered in the database directly, spread evenly over the registry; everything after that goes over HTTP. Nothing is asserted: a
//! busy machine must not fail a build. **met** and **missed** compare with the aims of the project; they are about a quiet machine.
//!
//! Reading order: `seed.rs` (databases) → `process.rs` (what is measured of a process) → `load.rs` (devices and connections) → `rounds.rs` (the
//! comparisons) → `tls.rs` → `memory.rs` (memory and start) → `table.rs`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

mod control;
mod load;
mod memory;
mod process;
mod rounds;
mod seed;
mod table;
mod tls;

/// What to run.
struct Plan {
    /// Devices that sign in, and the size of the small registry.
    active: usize,
    /// Size of the large registry.
    large: usize,
    /// Measured rounds of each server.
    rounds: usize,
    /// Sign-ins in each round.
    sign_ins: usize,
    /// Pending grants of the memory figure.
    grants: usize,
    /// Only this part.
    only: Option<String>,
}

impl Plan {
    /// Is this part to be measured?
    fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [mode, data] if mode == "--control" => control::run(&PathBuf::from(data)),
        // `cargo test --all-targets` and test runners that list start this file, too: a bench has nothing to say to them.
        _ if !arguments.iter().any(|argument| argument == "--bench") => Ok(()),
        _ => plan(&arguments).and_then(|plan| bench(&plan)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> anyhow::Result<Plan> {
    let mut plan = Plan { active: 1_000, large: 1_000_000, rounds: 15, sign_ins: 200, grants: 100_000, only: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || -> anyhow::Result<usize> {
            let text = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            text.parse().with_context(|| format!("{argument} {text}"))
        };
        match argument.as_str() {
            "--bench" => {}
            "--quick" => plan = Plan { large: 100_000, rounds: 5, sign_ins: 100, grants: 10_000, ..plan },
            "--devices" => plan.large = number()?,
            // Each round asks for a code per device, and a device has 60 in an hour.
            "--rounds" => plan.rounds = number()?.clamp(1, 25),
            "--only" => plan.only = arguments.next().cloned(),
            _ => anyhow::bail!("unknown option {argument}; there are --quick, --devices N, --rounds N and --only PART"),
        }
    }
    anyhow::ensure!(plan.large >= plan.active, "--devices must be at least {}", plan.active);
    Ok(plan)
}

fn bench(plan: &Plan) -> anyhow::Result<()> {
    // One thread, so that the load generator leaves a core to what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = seed::Workplace::new()?;
    let mut table = table::Table::default();
    runtime.block_on(async {
        if !matches!(plan.only.as_deref(), Some("memory" | "tls")) {
            rounds::run(plan, &work, &mut table).await?;
        }
        if plan.has("tls") {
            tls::run(plan, &work, &mut table).await?;
        }
        if plan.has("memory") {
            memory::run(plan, &work, &mut table).await?;
        }
        anyhow::Ok(())
    })?;
    table.print();
    Ok(())
}
