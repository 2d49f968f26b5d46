//! One binary for all tests over real sockets. Files are named after the use case or the RFC that they hold the product to; each attack of the
//! threat list has a test that names it (`a_001`, …).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // in tests a failure is the message

mod acme;
mod api;
mod approval;
mod architecture;
mod attestation;
mod browser;
mod clients;
mod command_line;
mod crash;
mod device_authorization;
mod device_code;
mod dpop;
mod listener;
mod mtls;
mod openapi;
mod pages;
mod pairing;
mod private_key_jwt;
mod remote;
mod resource;
mod rotation;
mod signing_keys;
#[path = "../store_contract/mod.rs"]
mod store_contract;
mod support;
mod tls;
mod tokens;
