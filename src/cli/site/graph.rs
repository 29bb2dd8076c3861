//! Where the nodes of the lineage picture stand: layer by layer in the direction of the data, in an order with few
//! crossings, long edges led around the nodes between their ends. The same tables always give the same picture.

use std::collections::{BTreeMap, BTreeSet};

/// How often the order of the layers is improved from both sides.
const SWEEPS: usize = 24;

/// How often the heights are drawn towards each other.
const ROUNDS: usize = 200;

/// Height of a node and the least distance of two, in pixels of the picture.
pub const NODE_HEIGHT: f64 = 30.0;
const NODE_GAP: f64 = 12.0;
/// What an edge takes that passes a layer.
const PASS_HEIGHT: f64 = 8.0;

/// What is drawn: per node its layer, and edges from lower to higher layers.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub layers: Vec<usize>,
    pub edges: BTreeSet<(usize, usize)>,
}

/// A drawn graph.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The middle of each node.
    pub y: Vec<f64>,
    /// Of each edge, the heights at which it passes the layers between its ends.
    pub passes: BTreeMap<(usize, usize), Vec<f64>>,
    pub height: f64,
}

/// A graph in which each edge leads from one layer to the next: further nodes stand for edges that pass a layer.
struct Proper {
    /// Node numbers by layer, in their order from top to bottom.
    layers: Vec<Vec<usize>>,
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    /// How many of the nodes are the graph's own.
    num_real: usize,
    chains: BTreeMap<(usize, usize), Vec<usize>>,
}

impl Graph {
    pub fn place(&self) -> Placed {
        let mut proper = Proper::of(self);
        proper.order();
        let y = proper.heights();
        let top = y.iter().copied().fold(f64::INFINITY, f64::min);
        let shift = if top.is_finite() { NODE_HEIGHT / 2.0 - top } else { 0.0 };
        let y: Vec<f64> = y.into_iter().map(|y| (y + shift).round()).collect();
        let bottom = y.iter().copied().fold(0.0, f64::max) + NODE_HEIGHT / 2.0;
        let passes =
            proper.chains.iter().map(|(edge, chain)| (*edge, chain.iter().map(|at| y[*at]).collect()));
        Placed { passes: passes.collect(), y: y[..proper.num_real].to_vec(), height: bottom }
    }
}

impl Proper {
    fn of(graph: &Graph) -> Proper {
        let num_real = graph.layers.len();
        let num_layers = graph.layers.iter().max().map_or(0, |last| last + 1);
        let mut layers = vec![Vec::new(); num_layers];
        for (node, layer) in graph.layers.iter().enumerate() {
            layers[*layer].push(node);
        }
        let mut chains = BTreeMap::new();
        let mut steps = Vec::new();
        let mut num_nodes = num_real;
        for &(from, to) in &graph.edges {
            let mut chain = Vec::new();
            let mut last = from;
            for layer in layers.iter_mut().take(graph.layers[to]).skip(graph.layers[from] + 1) {
                layer.push(num_nodes);
                chain.push(num_nodes);
                steps.push((last, num_nodes));
                last = num_nodes;
                num_nodes += 1;
            }
            steps.push((last, to));
            chains.insert((from, to), chain);
        }
        let mut before = vec![Vec::new(); num_nodes];
        let mut after = vec![Vec::new(); num_nodes];
        for (from, to) in steps {
            after[from].push(to);
            before[to].push(from);
        }
        Proper { layers, before, after, num_real, chains }
    }

    /// Sorts each layer by the mean place of its neighbours, from both sides in turn, and keeps the best order seen.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let num_layers = self.layers.len();
            for step in 1..num_layers {
                let (at, towards) = match sweep % 2 == 0 {
                    true => (step, step - 1),
                    false => (num_layers - 1 - step, num_layers - step),
                };
                let place = self.places(towards);
                let neighbours = if sweep % 2 == 0 { &self.before } else { &self.after };
                let mut keyed: Vec<(f64, usize, usize)> = self.layers[at]
                    .iter()
                    .enumerate()
                    .map(|(index, &node)| {
                        let places: Vec<f64> =
                            neighbours[node].iter().filter_map(|other| place.get(other).copied()).collect();
                        let mean = match places.is_empty() {
                            true => index as f64,
                            false => places.iter().sum::<f64>() / places.len() as f64,
                        };
                        (mean, index, node)
                    })
                    .collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                self.layers[at] = keyed.into_iter().map(|(_, _, node)| node).collect();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    fn places(&self, layer: usize) -> BTreeMap<usize, f64> {
        self.layers[layer].iter().enumerate().map(|(at, node)| (*node, at as f64)).collect()
    }

    fn crossings(&self) -> usize {
        let mut count = 0;
        for at in 1..self.layers.len() {
            let place = self.places(at - 1);
            let ends: Vec<(f64, usize)> = self.layers[at]
                .iter()
                .enumerate()
                .flat_map(|(to, node)| self.before[*node].iter().map(move |from| (from, to)))
                .filter_map(|(from, to)| Some((*place.get(from)?, to)))
                .collect();
            for (index, one) in ends.iter().enumerate() {
                count += ends[index + 1..]
                    .iter()
                    .filter(|other| {
                        (one.0 < other.0 && one.1 > other.1) || (one.0 > other.0 && one.1 < other.1)
                    })
                    .count();
            }
        }
        count
    }

    fn extent(&self, node: usize) -> f64 {
        if node < self.num_real { NODE_HEIGHT + NODE_GAP } else { PASS_HEIGHT }
    }

    /// How much a step of an edge wants to be level: most where the edge only passes.
    fn pull(&self, one: usize, other: usize) -> f64 {
        match (one < self.num_real, other < self.num_real) {
            (true, true) => 1.0,
            (false, false) => 8.0,
            _ => 2.0,
        }
    }

    /// Draws each node towards its neighbours without changing the order or letting two come too near.
    fn heights(&self) -> Vec<f64> {
        let mut y = vec![0.0; self.before.len()];
        for layer in &self.layers {
            let total: f64 = layer.iter().map(|node| self.extent(*node)).sum();
            let mut top = -total / 2.0;
            for &node in layer {
                y[node] = top + self.extent(node) / 2.0;
                top += self.extent(node);
            }
        }
        for round in 0..ROUNDS {
            let num_layers = self.layers.len();
            for step in 0..num_layers {
                let at = if round % 2 == 0 { step } else { num_layers - 1 - step };
                let wanted: Vec<(f64, f64)> = self.layers[at]
                    .iter()
                    .map(|&node| {
                        let near = self.before[node].iter().chain(&self.after[node]);
                        let pulls = near.map(|other| (self.pull(node, *other), y[*other]));
                        let (weight, sum) = pulls
                            .fold((0.0, 0.0), |(weight, sum), (pull, y)| (weight + pull, sum + pull * y));
                        if weight > 0.0 { (weight, sum / weight) } else { (0.1, y[node]) }
                    })
                    .collect();
                for (node, height) in self.layers[at].iter().zip(self.spread(&self.layers[at], &wanted)) {
                    y[*node] = height;
                }
            }
        }
        y
    }

    /// The heights nearest to the wanted ones (weight, height) that keep order and distance: blocks of nodes that touch
    /// stand where their mean wants to be.
    fn spread(&self, layer: &[usize], wanted: &[(f64, f64)]) -> Vec<f64> {
        struct Block {
            first: usize,
            weight: f64,
            /// Weighted sum over the nodes of where the block's first would stand if they had their will.
            sum: f64,
        }
        let mut offsets = vec![0.0; layer.len()];
        for at in 1..layer.len() {
            offsets[at] = offsets[at - 1] + (self.extent(layer[at - 1]) + self.extent(layer[at])) / 2.0;
        }
        let mut blocks: Vec<Block> = Vec::new();
        for (at, (weight, height)) in wanted.iter().enumerate() {
            let mut block = Block { first: at, weight: *weight, sum: weight * (height - offsets[at]) };
            while let Some(above) = blocks.pop_if(|above| above.sum / above.weight > block.sum / block.weight)
            {
                block = Block {
                    first: above.first,
                    weight: above.weight + block.weight,
                    sum: above.sum + block.sum,
                };
            }
            blocks.push(block);
        }
        let mut heights = vec![0.0; layer.len()];
        for (index, block) in blocks.iter().enumerate() {
            let end = blocks.get(index + 1).map_or(layer.len(), |next| next.first);
            for at in block.first..end {
                heights[at] = block.sum / block.weight + offsets[at];
            }
        }
        heights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_layer_never_touch_and_long_edges_pass_between_them() {
        // two chains that cross as numbered, and an edge over all layers
        let layers = vec![0, 0, 1, 1, 2, 2, 1];
        let edges = BTreeSet::from([(0, 3), (1, 2), (2, 4), (3, 5), (0, 5), (1, 6), (0, 4)]);
        let graph = Graph { layers: layers.clone(), edges };
        let placed = graph.place();
        for one in 0..layers.len() {
            for other in 0..one {
                if layers[one] == layers[other] {
                    assert!((placed.y[one] - placed.y[other]).abs() >= NODE_HEIGHT + NODE_GAP - 1.0);
                }
            }
        }
        for ((from, to), passes) in &placed.passes {
            assert_eq!(passes.len(), layers[*to] - layers[*from] - 1);
            for pass in passes {
                let is_free = |node: &usize| (placed.y[*node] - pass).abs() > NODE_HEIGHT / 2.0;
                assert!([2, 3, 6].iter().all(is_free), "{from}-{to} runs through a node");
            }
        }
        assert!(placed.y.iter().all(|y| *y >= NODE_HEIGHT / 2.0 && *y <= placed.height));
        assert_eq!(placed.y, graph.place().y);
    }

    #[test]
    fn chains_that_need_not_cross_do_not() {
        let graph = Graph { layers: vec![0, 0, 0, 1, 1, 1], edges: BTreeSet::from([(0, 5), (1, 4), (2, 3)]) };
        let mut proper = Proper::of(&graph);
        assert_eq!(proper.crossings(), 3);
        proper.order();
        assert_eq!(proper.crossings(), 0);
        assert!(graph.place().y.len() == 6);
        assert_eq!(Graph::default().place().height, NODE_HEIGHT / 2.0);
    }
}
