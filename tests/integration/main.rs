//! One binary for all tests over real sockets. Files are named after the use case or the RFC that they hold the product to; each attack of the
//! threat list has a test that names it (`a_001`, …).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // in tests a failure is the message

mod account;
mod acme;
mod api;
mod approval;
mod approvers;
mod architecture;
mod asyncapi;
mod attestation;
mod browser;
mod bulk;
mod clients;
mod command_line;
mod crash;
mod device_authorization;
mod device_code;
mod dpop;
mod field;
mod first_run;
mod held_open;
mod import;
mod labels;
mod languages;
mod listener;
mod mosquitto_rules;
mod mqtt;
mod mqtt_by_hand;
mod mqtt_check;
mod mqtt_hooks;
mod mqtt_load;
mod mqtt_outside;
mod mtls;
mod openapi;
mod operator_keys;
mod operators;
mod overview;
mod pages;
mod pairing;
mod passkeys;
mod policy;
mod private_key_jwt;
mod remote;
mod replace;
mod resource;
mod rotation;
mod setup;
mod signing_keys;
mod sso;
mod sso_attacks;
#[path = "../store_contract/mod.rs"]
mod store_contract;
mod support;
mod technician;
mod tls;
mod tokens;
mod two_persons;
