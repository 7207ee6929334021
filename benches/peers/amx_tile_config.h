/* Included before every C and C++ file of llama.cpp on processors with AMX: GCC 12 may drop the stores into a tile
   configuration as unread before `_tile_loadconfig` reads it, and ldtilecfg then faults on garbage. */
#include <immintrin.h>
#ifdef _tile_loadconfig
#undef _tile_loadconfig
#endif
static inline void moderato_load_tile_config(const void *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])config) : "memory");
}
#define _tile_loadconfig(config) moderato_load_tile_config(config)
