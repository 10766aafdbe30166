//! Messages of `chorus.v1` as JSON and back: protobuf's own mapping, by the descriptors that the messages were generated from.
//!
//! Knows nothing about HTTP, or about what a message says.

use bytes::Bytes;
use chorus_proto::v1::{
    GenerateReply, GenerateRequest, PredictReply, PredictRequest, ScoreReply, ScoreRequest, StatusReply,
};
use chorus_proto::{FILE_DESCRIPTOR_SET, shortened};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_path_to_error::Track;
use tonic::Code;

use crate::failure::Failure;

/// Characters of what was wrong, and of where.
const LONGEST_QUOTE: usize = 200;

/// The descriptors of `chorus.v1` can't be read, or lack a message: a defect of the build.
#[derive(Debug, thiserror::Error)]
#[error("the descriptors of chorus.v1 can't be used: {0}")]
pub struct NoDescriptor(String);

/// A message that goes as JSON.
pub(crate) trait Described: Message + Default {
    /// Its full name.
    const NAME: &'static str;
}

macro_rules! described {
    ($($message:ident),+) => {
        $(impl Described for $message {
            const NAME: &'static str = concat!("chorus.v1.", stringify!($message));
        })+
        const ALL: &[&str] = &[$($message::NAME),+];
    };
}

described!(
    GenerateRequest,
    GenerateReply,
    ScoreRequest,
    ScoreReply,
    PredictRequest,
    PredictReply,
    StatusReply
);

/// Reads and writes JSON.
#[derive(Debug, Clone)]
pub(crate) struct Json(DescriptorPool);

impl Json {
    /// # Errors
    /// Descriptors that can't be used.
    pub(crate) fn new() -> Result<Self, NoDescriptor> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET);
        let pool = pool.map_err(|error| NoDescriptor(error.to_string()))?;
        match ALL.iter().find(|name| pool.get_message_by_name(name).is_none()) {
            Some(missing) => Err(NoDescriptor(format!("{missing} is not there"))),
            None => Ok(Self(pool)),
        }
    }

    fn descriptor<T: Described>(&self) -> Result<MessageDescriptor, Failure> {
        self.0.get_message_by_name(T::NAME).ok_or_else(|| Failure::internal("a message without a descriptor"))
    }

    /// # Errors
    /// It is no JSON, or not of this message; the field is named.
    pub(crate) fn read<T: Described>(&self, bytes: &[u8]) -> Result<T, Failure> {
        let descriptor = self.descriptor::<T>()?;
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let mut track = Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
        let read = DynamicMessage::deserialize_with_options(descriptor, tracked, &DeserializeOptions::new());
        let message = read.map_err(|error| unreadable::<T>(&error, &track.path()))?;
        json.end().map_err(|error| unreadable::<T>(&error, &Track::new().path()))?;
        message.transcode_to().map_err(|error| Failure::internal(error.to_string()))
    }

    /// # Errors
    /// None that a message of this type can have.
    pub(crate) fn write<T: Described>(&self, message: &T) -> Result<Vec<u8>, Failure> {
        let mut dynamic = DynamicMessage::new(self.descriptor::<T>()?);
        dynamic.transcode_from(message).map_err(|error| Failure::internal(error.to_string()))?;
        let mut bytes = Vec::new();
        let options = SerializeOptions::new().use_proto_field_name(true);
        let written = dynamic.serialize_with_options(&mut serde_json::Serializer::new(&mut bytes), &options);
        written.map_err(|error| Failure::internal(error.to_string()))?;
        Ok(bytes)
    }

    /// A message as a line of its own.
    pub(crate) fn line<T: Described>(&self, message: &T) -> Result<Bytes, Failure> {
        let mut line = self.write(message)?;
        line.push(b'\n');
        Ok(line.into())
    }
}

fn unreadable<T: Described>(error: &serde_json::Error, path: &serde_path_to_error::Path) -> Failure {
    // Keys and values are the caller's, and are quoted.
    let path = shortened(&path.to_string(), LONGEST_QUOTE);
    let error = shortened(&error.to_string(), LONGEST_QUOTE);
    let field = (path != ".").then_some(path);
    let name = T::NAME;
    let message = match &field {
        Some(field) => format!("{field}: it can't be read ({error}); allowed: what {name} has as JSON"),
        None => format!("the request can't be read ({error}); allowed: a {name} as JSON"),
    };
    Failure { field, ..Failure::new(Code::InvalidArgument, message) }
}
