/* The runtime's public interface as the stand-in has it, for the version STANDIN_API (104 is 1.4). */
#ifndef STANDIN_INTERFACE_H
#define STANDIN_INTERFACE_H

#include <stdint.h>

#ifndef STANDIN_API
#define STANDIN_API 200
#endif

#ifdef __arm__
typedef uint32_t rknn_context;
#else
typedef uint64_t rknn_context;
#endif

enum {
    FLAG_ASYNC = 0x4,
    FLAG_PERF = 0x8,
};

enum {
    ASK_COUNTS,
    ASK_INPUT,
    ASK_OUTPUT,
    ASK_PERF_DETAIL,
    ASK_PERF_RUN,
    ASK_VERSION,
    ASK_MEMORY,
    ASK_CUSTOM,
    ASK_NATIVE_INPUT,
    ASK_NATIVE_OUTPUT,
};

enum {
    FAILED = -1,
    NO_MEMORY = -4,
    BAD_PARAMETER = -5,
    BAD_MODEL = -6,
    BAD_CONTEXT = -7,
    BAD_INPUT = -8,
    BAD_OUTPUT = -9,
    OTHER_TARGET = -13,
};

enum { FLOAT32, FLOAT16, INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, BOOLEAN };

typedef struct {
    uint32_t n_input;
    uint32_t n_output;
} rknn_input_output_num;

typedef struct {
    uint32_t index;
    uint32_t n_dims;
    uint32_t dims[16];
    char name[256];
    uint32_t n_elems;
    uint32_t size;
    int32_t fmt;
    int32_t type;
    int32_t qnt_type;
    int8_t fl;
    int32_t zp;
    float scale;
    uint32_t w_stride;
    uint32_t size_with_stride;
    uint8_t pass_through;
#if STANDIN_API >= 103
    uint32_t h_stride;
#endif
} rknn_tensor_attr;

typedef struct {
    uint32_t index;
    void *buf;
    uint32_t size;
    uint8_t pass_through;
    int32_t type;
    int32_t fmt;
} rknn_input;

typedef struct {
    uint8_t want_float;
    uint8_t is_prealloc;
    uint32_t index;
    void *buf;
    uint32_t size;
} rknn_output;

typedef struct {
    char *perf_data;
    uint64_t data_len;
} rknn_perf_detail;

typedef struct {
    int64_t run_duration;
} rknn_perf_run;

typedef struct {
    char api_version[256];
    char drv_version[256];
} rknn_sdk_version;

typedef struct {
    uint32_t total_weight_size;
    uint32_t total_internal_size;
#if STANDIN_API >= 104
    uint64_t total_dma_allocated_size;
    uint32_t total_sram_size;
    uint32_t free_sram_size;
    uint32_t reserved[10];
#endif
} rknn_mem_size;

typedef struct {
    char string[1024];
} rknn_custom_string;

typedef struct {
    void *virt_addr;
    uint64_t phys_addr;
    int32_t fd;
    int32_t offset;
    uint32_t size;
    uint32_t flags;
    void *priv_data;
} rknn_tensor_mem;

#if STANDIN_API >= 105
typedef struct {
    uint32_t index;
    uint32_t shape_number;
    int32_t fmt;
    char name[256];
    uint32_t dyn_range[512][16];
    uint32_t n_dims;
} rknn_input_range;
#endif

typedef struct {
    rknn_context ctx;
    int32_t real_model_offset;
#if STANDIN_API >= 200
    uint32_t real_model_size;
    int32_t model_buffer_fd;
    uint32_t model_buffer_flags;
    uint8_t reserved[112];
#elif STANDIN_API >= 104
    uint32_t real_model_size;
    uint8_t reserved[120];
#else
    uint8_t reserved[124];
#endif
} rknn_init_extend;

typedef struct {
    uint64_t frame_id;
    int32_t non_block;
    int32_t timeout_ms;
    int32_t fence_fd;
} rknn_run_extend;

typedef struct {
    uint64_t frame_id;
} rknn_output_extend;

int rknn_init(rknn_context *context, void *model, uint32_t size, uint32_t flags, rknn_init_extend *extend);
int rknn_destroy(rknn_context context);
int rknn_query(rknn_context context, int command, void *info, uint32_t size);
int rknn_inputs_set(rknn_context context, uint32_t count, rknn_input inputs[]);
int rknn_run(rknn_context context, rknn_run_extend *extend);
int rknn_outputs_get(rknn_context context, uint32_t count, rknn_output outputs[], rknn_output_extend *extend);
int rknn_outputs_release(rknn_context context, uint32_t count, rknn_output outputs[]);
#if STANDIN_API >= 102 && !defined(STANDIN_MINI)
int rknn_set_core_mask(rknn_context context, int mask);
#endif
#if STANDIN_API >= 104 && !defined(STANDIN_MINI)
int rknn_set_batch_core_num(rknn_context context, int count);
#endif

#endif
