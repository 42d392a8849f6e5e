//! The tests of the whole program, one module a promise. They are one program, because linking each module by itself
//! took longer than running it.

#[macro_use]
mod common;
mod earlier;
mod exact;
mod laboratory;

mod archives;
mod attributes;
mod calendars;
mod cli;
mod configuration;
mod conformance;
mod contact_drops;
mod contact_restores;
mod contacts;
mod crash;
mod damage;
mod drill;
mod drop;
mod folders;
mod graph_client;
mod habits;
mod hostile;
mod increments;
mod install;
mod layouts;
mod mail_cases;
mod mail_restores;
mod mounted;
mod organisation;
mod outbox;
mod own_files;
mod reader;
mod readers;
mod remote;
mod restore;
mod round_trip;
mod sets;
mod soak;
mod streams;
mod tasks;
mod tenant;
mod text;
mod tidy;
mod trust;
mod vectors;
mod webdav;
