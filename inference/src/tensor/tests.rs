//! Tensors there and back.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;

use super::{Elements, Tensor, decode, encode};
use crate::pb::ModelInferResponse;
use crate::pb::model_infer_request::InferInputTensor;

fn elements(count: usize) -> impl Strategy<Value = Elements> + Clone {
    let string = prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    prop_oneof![
        prop::collection::vec(any::<bool>(), count).prop_map(Elements::Bools),
        prop::collection::vec(any::<i64>(), count).prop_map(Elements::Signed),
        prop::collection::vec(any::<u64>(), count).prop_map(Elements::Unsigned),
        prop::collection::vec(-1e300..1e300, count).prop_map(Elements::Floats),
        prop::collection::vec(string, count).prop_map(Elements::Bytes),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn tensors_come_back_as_they_went(
        tensors in prop::collection::vec((1..4_usize, 0..5_usize).prop_flat_map(|(rows, columns)| {
            elements(rows * columns).prop_map(move |elements| (vec![rows, columns], elements))
        }), 0..4)
    ) {
        let named = tensors.into_iter().enumerate();
        let tensors: Vec<Tensor> = named
            .map(|(place, (shape, elements))| Tensor { name: place.to_string(), shape, elements })
            .collect();
        let mut response = ModelInferResponse::default();
        tensors.iter().for_each(|tensor| encode(tensor, &mut response));
        let inputs = response.outputs.into_iter().map(|output| InferInputTensor {
            name: output.name,
            datatype: output.datatype,
            shape: output.shape,
            ..InferInputTensor::default()
        });
        prop_assert_eq!(decode(inputs.collect(), response.raw_output_contents).unwrap(), tensors);
    }
}
