// The kernels that don't care for the type of weights.
#include "answers.cuh"
#include "moves.cuh"

KERNEL(begin_call, BeginArguments, 256, begin)
KERNEL(find_answers, AnswersArguments, ANSWER_THREADS, answers)
