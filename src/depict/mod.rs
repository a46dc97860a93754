//! A definition as people and their tools read it: pictures of its graph, plain English, and AsyncAPI.
//! Functions of the plan alone.

mod words;

mod graph;

pub mod mermaid;

pub mod dot;

mod layout;
pub mod svg;

pub mod english;

pub mod asyncapi;

#[cfg(test)]
mod fixture;
