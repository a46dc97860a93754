//! A definition as people read it: pictures of its graph. Functions of the plan alone.

mod words;

mod graph;

pub mod mermaid;

pub mod dot;

mod layout;
pub mod svg;

#[cfg(test)]
mod fixture;
