//! Placeholder.
#[derive(Debug)]
pub struct Endpoint;
#[derive(Debug)]
pub struct HttpDeliver;
#[derive(Debug)]
pub struct Limits;
