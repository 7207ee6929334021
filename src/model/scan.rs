//! What an ONNX file says of itself, read before ONNX Runtime opens it: inputs, outputs, operators, and the
//! files its weights live in.
//!
//! Promises to find every external data reference wherever a tensor may hide: initializers, sparse ones, node
//! attributes, subgraphs, functions and training graphs. A reference that is not a plain file name is refused.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Seek},
    path::Path,
};

use super::wire::{Field, Wire, malformed};

/// A graph input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub name: String,
    /// ONNX's number of the element type: 1 float32, 7 int64, 9 bool, 10 float16.
    pub element: u64,
    /// `None` where the graph leaves the size open.
    pub shape: Vec<Option<usize>>,
}

pub(super) const FLOAT32: u64 = 1;
pub(super) const FLOAT16: u64 = 10;

/// What was found in one ONNX file.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub operators: BTreeSet<String>,
    pub external_files: BTreeSet<String>,
}

impl Scan {
    /// Reads the file at `path`, stepping over the weights.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Self::of(BufReader::with_capacity(64 * 1024, file), length)
    }

    fn of<R: BufRead + Seek>(source: R, length: u64) -> io::Result<Self> {
        let mut scanner = Scanner { wire: Wire::new(source), found: Self::default() };
        scanner.message(length, Kind::Model, 0)?;
        if scanner.found.inputs.is_empty() {
            return Err(malformed("it holds no graph with inputs"));
        }
        Ok(scanner.found)
    }

    pub(super) fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    pub(super) fn has_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|port| port.name == name)
    }
}

/// The messages of `onnx.proto` that can lead to a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    /// The main graph: its inputs and outputs are the model's.
    MainGraph,
    Graph,
    Function,
    Training,
    Node,
    Attribute,
    Sparse,
}

/// What a field of a message leads to.
enum Leads {
    To(Kind),
    Tensor,
    Input,
    Output,
    Operator,
    Nowhere,
}

/// The field numbers of `onnx.proto`, ONNX IR version 13.
fn leads(kind: Kind, number: u64) -> Leads {
    match (kind, number) {
        (Kind::Model, 7) => Leads::To(Kind::MainGraph),
        (Kind::Model, 20) => Leads::To(Kind::Training),
        (Kind::Model, 25) => Leads::To(Kind::Function),
        (Kind::MainGraph, 11) => Leads::Input,
        (Kind::MainGraph, 12) => Leads::Output,
        (Kind::MainGraph | Kind::Graph, 1) | (Kind::Function, 7) => Leads::To(Kind::Node),
        (Kind::MainGraph | Kind::Graph, 5) | (Kind::Sparse, 1 | 2) => Leads::Tensor,
        (Kind::MainGraph | Kind::Graph, 15) => Leads::To(Kind::Sparse),
        (Kind::Function, 11) => Leads::To(Kind::Attribute),
        (Kind::Training, 1 | 2) => Leads::To(Kind::Graph),
        (Kind::Node, 4) => Leads::Operator,
        (Kind::Node, 5) => Leads::To(Kind::Attribute),
        (Kind::Attribute, 5 | 10) => Leads::Tensor,
        (Kind::Attribute, 6 | 11) => Leads::To(Kind::Graph),
        (Kind::Attribute, 22 | 23) => Leads::To(Kind::Sparse),
        _ => Leads::Nowhere,
    }
}

struct Scanner<R> {
    wire: Wire<R>,
    found: Scan,
}

impl<R: BufRead + Seek> Scanner<R> {
    /// Reads one message that ends at `end`.
    fn message(&mut self, end: u64, kind: Kind, depth: usize) -> io::Result<()> {
        // Subgraphs nest by two messages a level; a real model needs three levels.
        if depth > 64 {
            return Err(malformed("its subgraphs nest too deeply"));
        }
        while let Some(field) = self.wire.next_field(end)? {
            let Field::Bytes { number, length } = field else { continue };
            match leads(kind, number) {
                Leads::To(inner) => self.message(self.wire.end_of(length), inner, depth + 1)?,
                Leads::Tensor => self.tensor(self.wire.end_of(length))?,
                Leads::Input => {
                    let port = self.port(self.wire.end_of(length))?;
                    self.found.inputs.push(port);
                }
                Leads::Output => {
                    let port = self.port(self.wire.end_of(length))?;
                    self.found.outputs.push(port);
                }
                Leads::Operator => {
                    let operator = self.wire.text(length)?;
                    self.found.operators.insert(operator);
                }
                Leads::Nowhere => self.wire.skip(length)?,
            }
        }
        Ok(())
    }

    /// `TensorProto`: 13 is `external_data`, 14 `data_location` (1 means external).
    fn tensor(&mut self, end: u64) -> io::Result<()> {
        let (mut external, mut location) = (false, None);
        while let Some(field) = self.wire.next_field(end)? {
            match field {
                Field::Number { number: 14, value } => external |= value == 1,
                Field::Bytes { number: 13, length } => {
                    external = true;
                    let (key, value) = self.entry(self.wire.end_of(length))?;
                    if key == "location" && location.replace(value).is_some() {
                        return Err(malformed("a tensor names two external files"));
                    }
                }
                Field::Bytes { length, .. } => self.wire.skip(length)?,
                Field::Number { .. } => {}
            }
        }
        match (external, location) {
            (true, Some(file)) => {
                self.found.external_files.insert(file);
                Ok(())
            }
            (true, None) => Err(malformed("a tensor is external and names no file")),
            (false, _) => Ok(()),
        }
    }

    /// `StringStringEntryProto`.
    fn entry(&mut self, end: u64) -> io::Result<(String, String)> {
        let (mut key, mut value) = (String::new(), String::new());
        while let Some(field) = self.wire.next_field(end)? {
            match field {
                Field::Bytes { number: 1, length } => key = self.wire.text(length)?,
                Field::Bytes { number: 2, length } => value = self.wire.text(length)?,
                Field::Bytes { length, .. } => self.wire.skip(length)?,
                Field::Number { .. } => {}
            }
        }
        Ok((key, value))
    }

    /// `ValueInfoProto`: a name (1) and a type (2), of which tensors (1) alone are of interest.
    fn port(&mut self, end: u64) -> io::Result<Port> {
        let mut port = Port { name: String::new(), element: 0, shape: Vec::new() };
        while let Some(field) = self.wire.next_field(end)? {
            match field {
                Field::Bytes { number: 1, length } => port.name = self.wire.text(length)?,
                // TypeProto, TypeProto.Tensor and TensorShapeProto are entered in turn.
                Field::Bytes { number: 2, length } => self.tensor_type(self.wire.end_of(length), &mut port)?,
                Field::Bytes { length, .. } => self.wire.skip(length)?,
                Field::Number { .. } => {}
            }
        }
        Ok(port)
    }

    fn tensor_type(&mut self, end: u64, port: &mut Port) -> io::Result<()> {
        while let Some(field) = self.wire.next_field(end)? {
            match field {
                Field::Bytes { number: 1, length } => self.element_and_shape(self.wire.end_of(length), port)?,
                Field::Bytes { length, .. } => self.wire.skip(length)?,
                Field::Number { .. } => {}
            }
        }
        Ok(())
    }

    fn element_and_shape(&mut self, end: u64, port: &mut Port) -> io::Result<()> {
        while let Some(field) = self.wire.next_field(end)? {
            match field {
                Field::Number { number: 1, value } => port.element = value,
                Field::Bytes { number: 2, length } => self.shape(self.wire.end_of(length), port)?,
                Field::Bytes { length, .. } => self.wire.skip(length)?,
                Field::Number { .. } => {}
            }
        }
        Ok(())
    }

    fn shape(&mut self, end: u64, port: &mut Port) -> io::Result<()> {
        while let Some(field) = self.wire.next_field(end)? {
            let Field::Bytes { number: 1, length } = field else {
                if let Field::Bytes { length, .. } = field {
                    self.wire.skip(length)?;
                }
                continue;
            };
            let (dimension_end, mut size) = (self.wire.end_of(length), None);
            while let Some(inner) = self.wire.next_field(dimension_end)? {
                match inner {
                    Field::Number { number: 1, value } => size = usize::try_from(value).ok(),
                    Field::Bytes { length, .. } => self.wire.skip(length)?,
                    Field::Number { .. } => {}
                }
            }
            port.shape.push(size);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use super::*;

    /// One length-delimited field, by hand. Numbers below 2^14 suffice here.
    pub(in crate::model) fn bytes_field(number: u64, content: &[u8]) -> Vec<u8> {
        let mut out = varint(number << 3 | 2);
        out.extend(varint(content.len() as u64));
        out.extend(content);
        out
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value > 0x7f {
            out.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    fn number_field(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    pub(in crate::model) fn external_tensor(location: &str) -> Vec<u8> {
        let entry = [bytes_field(1, b"location"), bytes_field(2, location.as_bytes())].concat();
        [bytes_field(8, b"weight"), bytes_field(13, &entry), number_field(14, 1)].concat()
    }

    pub(in crate::model) fn port(name: &str, element: u64, shape: &[Option<u64>]) -> Vec<u8> {
        let dims: Vec<u8> = shape
            .iter()
            .flat_map(|size| bytes_field(1, &size.map_or_else(|| bytes_field(2, b"n"), |size| number_field(1, size))))
            .collect();
        let tensor = [number_field(1, element), bytes_field(2, &dims)].concat();
        [bytes_field(1, name.as_bytes()), bytes_field(2, &bytes_field(1, &tensor))].concat()
    }

    /// A model file around the given graph content.
    pub(in crate::model) fn model(graph: &[Vec<u8>]) -> Vec<u8> {
        let input = bytes_field(11, &port("input_ids", 7, &[None, None]));
        [number_field(1, 10), bytes_field(7, &[input, graph.concat()].concat())].concat()
    }

    fn scan(bytes: &[u8]) -> io::Result<Scan> {
        Scan::of(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn inputs_outputs_and_operators_are_found() {
        let node = [bytes_field(1, b"x"), bytes_field(4, b"GroupQueryAttention")].concat();
        let bytes = model(&[
            bytes_field(1, &node),
            bytes_field(11, &port("past_key_values.0.key", FLOAT16, &[None, Some(3), None, Some(64)])),
            bytes_field(12, &port("logits", FLOAT32, &[])),
        ]);
        let found = scan(&bytes).unwrap();
        let past = found.input("past_key_values.0.key").unwrap();
        assert_eq!((past.element, past.shape.as_slice()), (FLOAT16, &[None, Some(3), None, Some(64)][..]));
        assert!(found.has_output("logits"));
        assert!(found.operators.contains("GroupQueryAttention"));
    }

    #[test]
    fn external_files_are_found_wherever_a_tensor_may_hide() {
        let tensor = |name: &str| external_tensor(name);
        let attribute = [bytes_field(5, &tensor("in_attribute")), bytes_field(10, &tensor("in_list"))].concat();
        let subgraph = bytes_field(6, &bytes_field(5, &tensor("in_subgraph")));
        let node = [bytes_field(5, &attribute), bytes_field(5, &subgraph)].concat();
        let sparse = bytes_field(15, &bytes_field(1, &tensor("in_sparse")));
        let mut bytes = model(&[bytes_field(5, &tensor("in_graph")), bytes_field(1, &node), sparse]);
        let function_node = bytes_field(5, &bytes_field(5, &tensor("in_function")));
        bytes.extend(bytes_field(25, &bytes_field(7, &function_node)));
        bytes.extend(bytes_field(20, &bytes_field(1, &bytes_field(5, &tensor("in_training")))));
        let found: Vec<String> = scan(&bytes).unwrap().external_files.into_iter().collect();
        let expected =
            ["in_attribute", "in_function", "in_graph", "in_list", "in_sparse", "in_subgraph", "in_training"];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_external_tensor_without_a_file_is_refused() {
        let bytes = model(&[bytes_field(5, &number_field(14, 1))]);
        assert!(scan(&bytes).unwrap_err().to_string().contains("names no file"));
    }

    #[test]
    fn a_file_that_is_not_onnx_is_refused() {
        assert!(scan(b"PK\x03\x04 this is a zip").is_err());
        assert!(scan(b"").is_err());
        let cut = model(&[bytes_field(5, &external_tensor("weights.bin"))]);
        assert!(scan(&cut[..cut.len() - 3]).is_err());
    }
}
