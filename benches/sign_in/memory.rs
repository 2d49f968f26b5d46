//! Memory, and how long a start takes.

use std::time::Duration;

use pairgate::simulator::host::Stopwatch;
use pairgate::simulator::{PageOperator, Wire};

use crate::Plan;
use crate::load::{CONNECTIONS, Connection, Device};
use crate::process::Server;
use crate::rounds::thousands;
use crate::seed::{self, Workplace};
use crate::table::Table;

const MIB: f64 = 1024.0;
/// Starts of which the median is taken.
const STARTS: usize = 7;

/// Measures both.
pub async fn run(plan: &Plan, work: &Workplace, table: &mut Table) -> anyhow::Result<()> {
    let (mut new, mut again) = (Vec::new(), Vec::new());
    let mut idle = Vec::new();
    for start in 0..STARTS {
        let data = work.directory(&format!("start-{start}"))?;
        let (milliseconds, server) = first_answer(&data).await?;
        new.push(milliseconds);
        tokio::time::sleep(Duration::from_millis(500)).await;
        idle.push(mib(server.resident_kib()?));
        drop(server);
        again.push(first_answer(&data).await?.0);
    }
    table.plain("first answer after start, new database", &new, "ms", Some(100.0));
    table.plain("first answer after start, again", &again, "ms", Some(100.0));
    table.plain("idle memory", &idle, "MiB", Some(20.0));
    grants(plan, work, table).await
}

/// Milliseconds from the start of the process to its first answer.
async fn first_answer(data: &std::path::Path) -> anyhow::Result<(f64, Server)> {
    let stopwatch = Stopwatch::start();
    let server = Server::product(data)?;
    let mut connection = Connection::open(&server.authority).await?;
    let request = format!("GET /jwks HTTP/1.1\r\nhost: {}\r\n\r\n", server.authority);
    let answer = connection.send(request.as_bytes()).await?;
    anyhow::ensure!(answer.status == 200, "the first answer was {}", answer.status);
    Ok((stopwatch.elapsed().as_secs_f64() * 1e3, server))
}

/// What many pending sign-ins add: each device asks for a code over HTTP and polls once, then an operator looks at the overview.
async fn grants(plan: &Plan, work: &Workplace, table: &mut Table) -> anyhow::Result<()> {
    println!("{} pending grants over HTTP …", thousands(plan.grants));
    let devices = (1..=plan.grants).map(|row| Device::new(seed::device_id(row))).collect::<anyhow::Result<Vec<_>>>()?;
    let data = work.registry("grants", plan.grants, &devices)?;
    let link = seed::command(&data, &["operator", "link", "bench"])?;
    let server = Server::product(&data)?;
    let operator = PageOperator::new(&server.issuer(), Wire::new()?)?;
    operator.sign_in(link.lines().next().unwrap_or_default()).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = mib(server.resident_kib()?);
    let mut lanes = Vec::new();
    let mut shares = vec![Vec::new(); CONNECTIONS];
    for (index, device) in devices.into_iter().enumerate() {
        shares[index % CONNECTIONS].push(device);
    }
    for share in shares {
        let authority = server.authority.clone();
        lanes.push(tokio::spawn(async move {
            let mut connection = Connection::open(&authority).await?;
            for device in share {
                ask_and_poll(&mut connection, &authority, device).await?;
            }
            anyhow::Ok(())
        }));
    }
    for lane in lanes {
        lane.await??;
    }
    anyhow::ensure!(operator.is_registered(&seed::device_id(1)).await?, "the device page is not there");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let added = mib(server.resident_kib()?) - before;
    // The aim is for 100,000.
    let aim = (plan.grants >= 100_000).then_some(30.0);
    table.plain(&format!("{} pending grants add", thousands(plan.grants)), &[added], "MiB", aim);
    Ok(())
}

async fn ask_and_poll(connection: &mut Connection, authority: &str, mut device: Device) -> anyhow::Result<()> {
    let answer = connection.send(&device.code_request(authority)?).await?;
    device.take_nonce(&answer);
    let answer = connection.send(&device.code_request(authority)?).await?;
    device.take_nonce(&answer);
    device.take_code(&answer)?;
    let answer = connection.send(&device.poll(authority, "")?).await?;
    anyhow::ensure!(answer.body.contains("authorization_pending"), "a poll was answered with {}", answer.body);
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // of KiB
fn mib(kib: u64) -> f64 {
    kib as f64 / MIB
}
