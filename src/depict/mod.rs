//! A definition as people read it: pictures of its graph, and plain English. Functions of the plan alone.

mod words;

mod graph;

pub mod mermaid;

pub mod dot;

mod layout;
pub mod svg;

pub mod english;

#[cfg(test)]
mod fixture;
