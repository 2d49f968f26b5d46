//! Pairgate: a self-hosted device-code broker.
//!
//! **A code exists only if a device that we registered, and that an administrator paired, asked for it with its own key.**
//!
//! Where to begin: [`model`] has the nouns, [`broker`] everything that the product can do, [`store`] what is kept and how, [`device_auth`] who is
//! calling, [`http`] the routes and pages, [`mqtt`] the same over MQTT, [`cli`] the commands. Layers are strictly downward (`docs/architecture.md`):
//! `clock id secret` · `oauth` · `model spreadsheet telemetry` · `store config tls` · `device_auth upstream` · `resource` · `broker` · `http mqtt` · `cli`; `simulator` plays devices and operators from outside.
//! [`resource`] is for others' services: what they need to accept only enrolled devices.

pub mod clock;
pub mod id;
pub mod secret;

pub mod config;
pub mod oauth;

pub mod model;
pub mod spreadsheet;
pub mod telemetry;

pub mod store;
pub mod tls;

pub mod device_auth;
pub mod upstream;

pub mod resource;

pub mod broker;

pub mod http;
pub mod mqtt;

pub mod cli;
pub mod simulator;
