//! Tests of the examples, the documents, the layout of the sources, and the compile errors of
//! `select!`.
#![cfg(in_repository)]

// The modules of the examples that the tests call. The examples use more of these modules.
#[path = "../../examples/common/acceptor.rs"]
mod acceptor;
#[allow(dead_code)]
#[path = "../../examples/supervisor/backoff.rs"]
mod backoff;
#[path = "../../examples/batcher/batch.rs"]
mod batch;
#[path = "../../examples/raft/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../../examples/http/exchange.rs"]
mod exchange;
#[path = "../../examples/common/lines.rs"]
mod lines;
#[path = "../../examples/echo/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../../examples/raft/node.rs"]
mod node;
#[path = "../../examples/http/parse.rs"]
mod parse;
#[path = "../../examples/from_go/sections/mod.rs"]
mod sections;
#[allow(dead_code)]
#[path = "../../examples/echo/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../../examples/per_core.rs"]
mod server_per_core;

mod batcher;
mod chat;
mod compile_errors;
mod documents;
mod echo;
mod from_go;
mod heartbeat;
mod http;
mod layers;
mod per_core;
mod program;
mod raft_sim;
mod raft_tcp;
mod supervisor;
