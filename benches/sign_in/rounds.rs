//! The comparisons: product and control, small registry and large, in turns.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pairgate::simulator::{PageOperator, Wire};
use tokio::task::JoinSet;

use crate::Plan;
use crate::load::{Answer, CONNECTIONS, Connection, Device, drive};
use crate::process::Server;
use crate::seed::{self, Workplace};
use crate::table::Table;

/// A server, its devices, and the CPU time per request in microseconds of each round.
struct Contender {
    server: Server,
    is_control: bool,
    devices: Vec<Device>,
    operator: Option<Arc<PageOperator>>,
    polls: Vec<f64>,
    codes: Vec<f64>,
    sign_ins: Vec<f64>,
}

/// Runs all rounds.
pub async fn run(plan: &Plan, work: &Workplace, table: &mut Table) -> anyhow::Result<()> {
    let mut small = pair("small", plan.active, plan, work).await?;
    let mut large = pair("large", plan.large, plan, work).await?;
    println!("{} rounds of {} devices, {CONNECTIONS} connections …", plan.rounds, plan.active);
    for round in 0..=plan.rounds {
        for contender in small.iter_mut().chain(&mut large) {
            if plan.has("polls") || plan.has("codes") {
                contender.code_round().await?;
            }
            if plan.has("polls") {
                contender.poll_round().await?;
            }
            if plan.has("sign-ins") {
                contender.sign_in_round(plan.sign_ins).await?;
            }
            // The first round warms up: caches, memory, branch predictors.
            if round == 0 {
                contender.forget();
            }
        }
    }
    for (registered, [product, control]) in [(plan.active, &small), (plan.large, &large)] {
        let figure = |what: &str| format!("{what}, {} devices", thousands(registered));
        table.ratio(&figure("pending poll"), &product.polls, &control.polls, Some(1.5));
        table.ratio(&figure("device_authorization"), &product.codes, &control.codes, Some(1.5));
        table.ratio(&figure("complete sign-in"), &product.sign_ins, &control.sign_ins, None);
    }
    table.growth("pending poll, large registry to small", &large[0].polls, &small[0].polls, 1.2);
    table.growth("device_authorization, large to small", &large[0].codes, &small[0].codes, 1.2);
    Ok(())
}

async fn pair(name: &str, registered: usize, plan: &Plan, work: &Workplace) -> anyhow::Result<[Contender; 2]> {
    let devices = (0..plan.active)
        .map(|index| Device::new(seed::device_id(seed::spread(index, plan.active, registered))))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let product = work.registry(&format!("product-{name}"), registered, &devices)?;
    let control = work.registry(&format!("control-{name}"), registered, &devices)?;
    let link = seed::command(&product, &["operator", "link", "bench"])?;
    let server = Server::product(&product)?;
    let operator = PageOperator::new(&server.issuer(), Wire::new()?)?;
    operator.sign_in(link.lines().next().unwrap_or_default()).await?;
    let mut product = Contender::new(server, devices.clone(), Some(Arc::new(operator)));
    product.fetch_nonces().await?;
    Ok([product, Contender::new(Server::control(&control)?, devices, None)])
}

impl Contender {
    fn new(server: Server, devices: Vec<Device>, operator: Option<Arc<PageOperator>>) -> Self {
        let is_control = operator.is_none();
        Self { server, is_control, devices, operator, polls: Vec::new(), codes: Vec::new(), sign_ins: Vec::new() }
    }

    fn forget(&mut self) {
        self.polls.clear();
        self.codes.clear();
        self.sign_ins.clear();
    }

    /// A first request without a nonce is answered with one. Later answers bring the next.
    async fn fetch_nonces(&mut self) -> anyhow::Result<()> {
        let requests = self.signed(|device, authority| device.code_request(authority))?;
        let answers = drive(&self.server.authority, requests).await?;
        self.take_nonces(&answers);
        Ok(())
    }

    /// Each device asks for a code.
    async fn code_round(&mut self) -> anyhow::Result<()> {
        let requests = self.signed(|device, authority| device.code_request(authority))?;
        let (answers, cost) = self.measured(requests).await?;
        for (device, answer) in self.devices.iter_mut().zip(&answers) {
            device.take_code(answer)?;
        }
        self.take_nonces(&answers);
        self.codes.push(cost);
        Ok(())
    }

    /// Each device polls once for the code that it has just got: a first poll is never too fast.
    async fn poll_round(&mut self) -> anyhow::Result<()> {
        let requests = self.signed(|device, authority| device.poll(authority, ""))?;
        let (answers, cost) = self.measured(requests).await?;
        let is_pending = |answer: &Answer| self.is_control || answer.body.contains("authorization_pending");
        if let Some(other) = answers.iter().find(|answer| answer.status != 400 || !is_pending(answer)) {
            anyhow::bail!("a poll was answered with {} {}", other.status, other.body);
        }
        self.take_nonces(&answers);
        self.polls.push(cost);
        Ok(())
    }

    fn signed(&self, sign: impl Fn(&Device, &str) -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Vec<Vec<u8>>> {
        self.devices.iter().map(|device| sign(device, &self.server.authority)).collect()
    }

    fn take_nonces(&mut self, answers: &[Answer]) {
        for (device, answer) in self.devices.iter_mut().zip(answers) {
            device.take_nonce(answer);
        }
    }

    /// The answers, and the server's CPU time per request in microseconds.
    async fn measured(&self, requests: Vec<Vec<u8>>) -> anyhow::Result<(Vec<Answer>, f64)> {
        let count = requests.len();
        let before = settled(&self.server).await?;
        let answers = drive(&self.server.authority, requests).await?;
        let spent = settled(&self.server).await?.saturating_sub(before);
        Ok((answers, micros_each(spent, count)))
    }

    /// So many devices sign in from code to token, as many at a time as there are connections.
    async fn sign_in_round(&mut self, count: usize) -> anyhow::Result<()> {
        let before = settled(&self.server).await?;
        let mut lanes = JoinSet::new();
        let devices = self.devices.iter().take(count);
        let mut shares = vec![Vec::new(); CONNECTIONS];
        for (index, device) in devices.cloned().enumerate() {
            shares[index % CONNECTIONS].push(device);
        }
        for share in shares {
            let (authority, operator) = (self.server.authority.clone(), self.operator.clone());
            lanes.spawn(async move {
                let mut connection = Connection::open(&authority).await?;
                for device in share {
                    match &operator {
                        Some(operator) => sign_in(&mut connection, &authority, device, operator).await?,
                        None => control_sign_in(&mut connection, &authority, device).await?,
                    }
                }
                anyhow::Ok(())
            });
        }
        for outcome in lanes.join_all().await {
            outcome?;
        }
        let spent = settled(&self.server).await?.saturating_sub(before);
        self.sign_ins.push(micros_each(spent, count));
        Ok(())
    }
}

/// The whole way: the device over its connection, the approver with the pages of the product.
async fn sign_in(
    connection: &mut Connection,
    authority: &str,
    mut device: Device,
    operator: &PageOperator,
) -> anyhow::Result<()> {
    let answer = connection.send(&device.code_request(authority)?).await?;
    device.take_nonce(&answer);
    let code = device.take_code(&answer)?;
    let address = code["verification_uri_complete"].as_str().context("no verification_uri_complete")?;
    let page = operator.claim(address).await?;
    // News is answered at once, and the next poll may follow at once.
    let answer = connection.send(&device.poll(authority, "prefer: wait=25\r\n")?).await?;
    device.take_nonce(&answer);
    let body: serde_json::Value = serde_json::from_str(&answer.body)?;
    let number = body["confirmation_number"].as_str().with_context(|| format!("no number in {body}"))?;
    operator.approve(&page, number).await?;
    let answer = connection.send(&device.poll(authority, "")?).await?;
    anyhow::ensure!(answer.status == 200, "no token but {} {}", answer.status, answer.body);
    Ok(())
}

/// The same number of requests with the unavoidable part of each.
async fn control_sign_in(connection: &mut Connection, authority: &str, device: Device) -> anyhow::Result<()> {
    let (id, length) = (&device.id, "client_id=".len() + device.id.len());
    let head = format!("/page HTTP/1.1\r\nhost: {authority}\r\ncookie: {id}\r\n");
    let get = format!("GET {head}\r\n");
    let post = format!("POST {head}content-length: {length}\r\n\r\nclient_id={id}");
    let steps = [
        (device.code_request(authority)?, 200),
        (get.clone().into_bytes(), 200),
        (post.clone().into_bytes(), 200),
        (device.poll(authority, "")?, 400),
        (get.into_bytes(), 200),
        (post.into_bytes(), 200),
        (device.request(authority, "/redeem", &format!("client_id={id}"), "")?, 200),
    ];
    for (request, status) in steps {
        let answer = connection.send(&request).await?;
        anyhow::ensure!(answer.status == status, "the control answered {} {}", answer.status, answer.body);
    }
    Ok(())
}

/// CPU time, once the server's threads have gone to sleep: the kernel counts a thread's time when it stops running.
pub async fn settled(server: &Server) -> anyhow::Result<Duration> {
    tokio::time::sleep(Duration::from_millis(15)).await;
    server.cpu_time()
}

#[allow(clippy::cast_precision_loss)] // of counts far below 2^52
pub fn micros_each(spent: Duration, count: usize) -> f64 {
    spent.as_secs_f64() * 1e6 / count as f64
}

/// `1,000,000`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
