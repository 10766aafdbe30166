// What each kernel is given, by value. Mirrored field by field in src/arguments.rs, which a test holds against the sizes here.
// W stands for the type of the weights, which a kernel's name says.
//
// Shapes: H units, `padded` = H rounded up to 8 numbers, so that every row begins at 16 bytes; four gates i, f, g, o of a
// unit side by side. A state slot is `[layers][h, c][padded]` in f32, `slot_numbers` numbers.
#pragma once

typedef unsigned int u32;

/// What a layer's gates begin with.
enum InputKind : u32 {
    /// The row of a table [V][H][4] that the token picks: W x + b of every token, for the first layer.
    TABLE = 0,
    /// W x of the token's embedding [V][input_depth].
    EMBEDDING = 1,
    /// W x of the hidden vector of the layer below after this step, in the slots.
    BELOW = 2,
};

struct BeginArguments {
    /// Host memory that the device reads.
    const u32* source;
    u32* target;
    u32* counters;
    u32 words;
    u32 counter_count;
};

struct RowsArguments {
    /// [H][4][input_depth]; none with a table.
    const void* input_weights;
    /// [H][4][padded].
    const void* weights;
    /// [H][4]; none with a table, which has it.
    const float* bias;
    /// Table or embedding.
    const void* input;
    float* slots;
    const u32* tokens;
    const u32* from;
    const u32* to;
    u32 input_kind;
    u32 input_depth;
    u32 hidden;
    u32 padded;
    u32 slot_numbers;
    u32 layer;
    u32 rows;
    /// Numbers of each weight row that the cache is asked for before the launch before is done: of the input's, of the others.
    u32 input_ahead;
    u32 ahead;
};

struct LoadArguments {
    const float* slots;
    const u32* from;
    /// [layers][rows][padded] W: h.
    void* before;
    u32 layers;
    u32 rows;
    u32 padded;
    u32 slot_numbers;
};

struct EmbedArguments {
    /// [V][depth] W.
    const void* embedding;
    const u32* tokens;
    /// [rows][depth] W.
    void* target;
    u32 rows;
    u32 depth;
};

/// Rows of the table, from the products of embeddings.
struct TabulateArguments {
    /// [rows][numbers] f32.
    const float* products;
    /// [numbers].
    const float* bias;
    /// [rows][numbers] W.
    void* table;
    u32 rows;
    /// 4 H.
    u32 numbers;
};

/// One step of a layer whose products are there.
struct CellArguments {
    /// [size][H][4]: the sums of all products.
    const float* gates;
    /// [V][H][4] W, or none.
    const void* table;
    const float* bias;
    /// [batch][padded]: c between the steps of a block.
    float* carry;
    float* slots;
    /// Of this step's rows.
    const u32* tokens;
    const u32* from;
    const u32* to;
    /// [size][padded] W: h after the step.
    void* after;
    u32 hidden;
    u32 padded;
    u32 slot_numbers;
    u32 layer;
    u32 size;
    /// Rows of the step that follows: the others end here, and their state goes to its slot.
    u32 next_size;
    /// Whether c stands in the slots.
    u32 is_first;
};

/// All steps of a layer in one launch.
struct ScanArguments {
    /// [H][4][padded].
    const void* weights;
    /// [N][H][4]: the input's projections, or none with a table.
    const float* projected;
    /// [V][H][4] W, or none.
    const void* table;
    const float* bias;
    float* slots;
    const u32* tokens;
    const u32* from;
    const u32* to;
    /// [steps + 1]: where each step's rows begin.
    const u32* offsets;
    /// [batch][padded] W: h before the block.
    const void* before;
    /// [N][padded] W.
    void* after;
    /// Zero before the launch.
    u32* counter;
    u32 steps;
    u32 hidden;
    u32 padded;
    u32 slot_numbers;
    u32 layer;
    /// Units of one block.
    u32 units;
    /// How many of them have their weights in shared memory.
    u32 kept;
    /// Parts that a unit's products are computed in.
    u32 parts;
};

struct SelectArguments {
    /// [N][padded] W: the top layer's h.
    const void* hidden;
    const float* slots;
    /// For each row a row of `hidden`, or with the highest bit a slot.
    const u32* sources;
    /// [rows][padded] W.
    void* target;
    u32 rows;
    u32 padded;
    u32 slot_numbers;
    u32 layer;
};

/// The output layer's products for few rows.
struct ProjectArguments {
    /// [outputs][padded] W.
    const void* weights;
    /// [rows][padded] W, or none: then the rows are read where the sources say, slots all of them.
    const void* selected;
    const float* slots;
    const u32* sources;
    /// [rows][outputs].
    float* logits;
    /// A multiple of 4.
    u32 outputs;
    u32 padded;
    u32 slot_numbers;
    u32 layer;
    u32 rows;
    /// Numbers of each weight row that the cache is asked for before the launch before is done.
    u32 ahead;
};

enum AskKind : u32 { ASK_NORM = 0, ASK_ROW = 1, ASK_TOP = 2, ASK_IDS = 3, ASK_DRAW = 4 };

constexpr u32 NO_TOKEN = 0xffffffffu;

/// What is wanted of a row of logits.
struct Ask {
    u32 kind;
    /// A token whose logit is wanted, too.
    u32 target;
    /// ASK_TOP: the least count. ASK_IDS: how many.
    u32 count;
    /// ASK_IDS: where they begin in the list of ids.
    u32 ids;
    /// Where the answer's list begins, in words.
    u32 list;
    /// How many entries it has room for.
    u32 room;
    /// ASK_TOP: ln p, infinite where there is none. ASK_DRAW: the place.
    double number;
};

/// What is known of a row; lists stand elsewhere: ids first, then logits.
struct Answer {
    double log_sum;
    float largest;
    float target;
    /// ASK_TOP: entries of the list.
    u32 count;
    u32 drawn;
};

struct AnswersArguments {
    /// [rows][outputs], without the bias; whole rows get it.
    float* logits;
    const float* bias;
    const Ask* asks;
    const u32* ids;
    Answer* answers;
    u32* lists;
    u32 vocabulary;
    u32 outputs;
    u32 rows;
    /// Whether a row is staged in shared memory, for who reads it more than once.
    u32 is_staged;
};
