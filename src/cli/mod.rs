//! The command line: a file per group of commands. Human output by default, aligned, without borders; `--json` everywhere.
//!
//! Exit codes: 0 done, 1 refused or failed (the message says what to do), 2 wrong arguments. Commands that change something call the same use
//! cases as the pages do, on the database in the data directory; a broker that runs at the same time sees the change within a second.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Remote};

mod api_client;
mod audit;
mod config;
mod demo;
mod device;
mod device_file;
mod doctor;
mod field;
mod keys;
mod mqtt;
mod operator;
mod operator_key;
mod output;
mod pairing;
mod policy;
mod remote;
mod risk;
pub mod serve;
mod simulate;
mod site;
mod tls;
mod token;
pub mod transport;

/// The one place where an organisation's printers, TVs and consoles sign in.
#[derive(Debug, Parser)]
#[command(name = "pairgate", version, about, after_help = "Begin with: pairgate demo")]
struct Arguments {
    /// Configuration file [default: pairgate.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [default: data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// A broker on another machine, by its administration API [env: PAIRGATE_SERVER]
    #[arg(long, global = true, value_name = "URL", help_heading = "Another machine's broker")]
    server: Option<String>,
    /// File with the token to show there [env: PAIRGATE_TOKEN, the token itself]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Another machine's broker")]
    token_file: Option<PathBuf>,
    /// PEM file with the authority of its certificate, if that is a private one: what `pairgate tls ca` prints
    #[arg(long, global = true, value_name = "FILE", help_heading = "Another machine's broker")]
    ca: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See a device get paired and sign in, and an attacker get nothing
    Demo(demo::DemoArgs),
    /// Run the broker
    Serve(serve::ServeArgs),
    /// Register, list, import, export, suspend, resume and retire devices
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Open and close pairing, confirm what waits
    #[command(subcommand)]
    Pairing(pairing::PairingCommand),
    /// Sites: their names, networks and rules
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// Kinds, resources and sites as a file: export, import, history
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Add people, make sign-in links, add their keys, sign commands
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Make, list and revoke tokens of programs that call the administration API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Who these commands act as
    Whoami,
    /// Read and check the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The local certificate authority: make it, show it, renew
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// List and rotate the keys that sign tokens
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// The organisation's MQTT broker: rules for it, and whether it keeps them
    #[command(subcommand)]
    Mqtt(mqtt::MqttCommand),
    /// The risk assessment: what is in force, signed versions
    #[command(subcommand)]
    Risk(risk::RiskCommand),
    /// Show and check configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look whether this installation is as it should be
    Doctor,
    /// Play a device, or a fleet of them, against a broker
    Simulate(simulate::SimulateArgs),
}

/// Runs the program.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { config: file, data, json, server, token_file, ca, command } = arguments;
    let load = || -> anyhow::Result<Config> { Ok(Config::load(file.as_deref(), data.as_deref())?) };
    let command = match command {
        // These two play devices of their own; they administer nobody's broker.
        Command::Demo(args) => return demo::run(args, data, json).await,
        Command::Simulate(args) => return simulate::run(args, ca, json).await,
        // What these need is in the hands of who runs them, wherever the broker is.
        Command::Operator(command) if command.is_of_this_machine() => {
            return operator::run(command, &load()?, json).await;
        }
        command => command,
    };
    if let Some(remote) = Remote::find(server.as_deref(), token_file.as_deref(), ca.as_deref())? {
        return remote::run(command, &remote, json).await;
    }
    match command {
        Command::Demo(args) => demo::run(args, data, json).await,
        Command::Simulate(args) => simulate::run(args, None, json).await,
        Command::Serve(args) => serve::run(args, load()?).await,
        Command::Device(command) => device::run(command, &load()?, json).await,
        Command::Pairing(command) => pairing::run(command, &load()?, json).await,
        Command::Site(command) => site::run(command, &load()?, json).await,
        Command::Policy(command) => policy::run(command, &load()?, json).await,
        Command::Operator(command) => operator::run(command, &load()?, json).await,
        Command::Token(command) => token::run(command, &load()?, json).await,
        Command::Whoami => remote::whoami_here(&load()?, json).await,
        Command::Audit(command) => audit::run(command, &load()?, json).await,
        Command::Tls(command) => tls::run(command, &load()?, json),
        Command::Doctor => doctor::run(&load()?, json).await,
        Command::Keys(command) => keys::run(command, &load()?, json).await,
        Command::Mqtt(command) => mqtt::run(command, &load()?, json).await,
        Command::Risk(command) => risk::run(command, &load()?, json).await,
        Command::Config(command) => config::run(command, load, json),
    }
}
