// Every kernel of one type of weights by its name, and where a tile of rows is a number in the code, one for each tile.
#pragma once

#include "moves.cuh"
#include "output.cuh"
#include "recurrence.cuh"

/// Steps of few rows, by blocks of up to so many threads, of which a multiprocessor is to have room for so many. How few rows
/// they are for each type the launching side decides.
#define OF_FEW_ROWS(type, W, rows, threads, blocks)                                                                      \
    KERNEL_AHEAD(lstm_rows_##type##_##rows, RowsArguments, threads, blocks, fetch_for_rows<W>, (lstm_rows<W, rows>))     \
    KERNEL_AHEAD(project_##type##_##rows, ProjectArguments, threads, blocks, fetch_for_project<W>, (project<W, rows>))

#define SCAN(type, W, rows) KERNEL(scan_##type##_##rows, ScanArguments, SCAN_THREADS, (scan<W, rows>))

#define OF_TYPE(type, W)                                \
    OF_FEW_ROWS(type, W, 1, 256, 1)                     \
    OF_FEW_ROWS(type, W, 2, 256, 1)                     \
    OF_FEW_ROWS(type, W, 4, 256, 1)                     \
    SCAN(type, W, 1)                                    \
    SCAN(type, W, 2)                                    \
    SCAN(type, W, 4)                                    \
    SCAN(type, W, 8)                                    \
    KERNEL(load_##type, LoadArguments, 256, load<W>)    \
    KERNEL(embed_##type, EmbedArguments, 256, embed<W>) \
    KERNEL(tabulate_##type, TabulateArguments, 256, tabulate<W>) \
    KERNEL(cell_##type, CellArguments, 256, cell<W>)    \
    KERNEL(select_##type, SelectArguments, 256, select<W>)
