//! The admin API: `/livez`, `/readyz`, `/metrics` and, below `/api/v1`, what is kept about sagas.
//!
//! It reads, takes orders for instances, reloads definitions, and begins backups. It has no authentication: it is meant for loopback or for a proxy
//! in front. An order must be JSON and say so, and come without an `Origin`: web pages give none. Nor do
//! they reload.
//!
//! [`server`] binds and serves, `connection` is one connection with its time limits, `guard` what goes for every
//! request, `store` where reads of the store take their turns, [`api`], [`orders`], [`definitions`] and [`backup`] hold one function a route, [`query`] reads parameters, and
//! [`view`] and [`history`] are the answers. The answers are a contract of their own, apart from what
//! is stored; the command line reads them back into the same types.

pub use api::ApiState;
pub use server::{BindError, bind, serve};
pub use store::StoreWindow;

mod api;
pub mod backup;
mod connection;
pub mod definitions;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod guard;
pub mod history;
mod orders;
mod query;
mod server;
mod store;
#[cfg(test)]
mod tests;
pub mod view;
