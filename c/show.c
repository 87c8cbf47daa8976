// SPDX-License-Identifier: GPL-2.0
/*
 * What a region has and has done, for people and programs that look on:
 * /sys/kernel/debug/hmm_devmem/NUMBER-DEVICE/, for root only.
 *
 *   region	number, device, kind (private or coherent), page_size, first_pfn
 *   frames	struct hmm_core_stats: total = free + claimed + resident + retired at rest;
 *		full_blocks: 2 MiB blocks in which nothing is free, whoever has their frames
 *   stats	struct hmm_region_stats, since the region was added
 *   processes	one line for each process with a view attached: its id and its own stats
 *
 * A line is a key and its value, in "processes" several such pairs. Keys may be added at the
 * end; those that are there keep their name and meaning. Pages are of 4 KiB, times in ns.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "internal.h"

static struct dentry *show_root;

static int region_show(struct seq_file *s, void *unused)
{
	const struct hmm_region *region = s->private;

	seq_printf(s, "number %u\ndevice %s\nkind %s\npage_size %lu\nfirst_pfn %lu\n", region->id,
		   dev_name(region->devmem.device),
		   hmm_region_is_private(region) ? "private" : "coherent", PAGE_SIZE,
		   region->devmem.pfn_first);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(region);

/* 2 MiB blocks without a free frame. */
static u64 full_blocks(const struct hmm_region *region)
{
	u64 first, npages, from = 0, full = 0;

	while (!hmm_core_next_span(region->core, from, HMM_BLOCK_PAGES, &first, &npages)) {
		full += npages == HMM_BLOCK_PAGES;
		from = round_down(first, HMM_BLOCK_PAGES) + HMM_BLOCK_PAGES;
		cond_resched();
	}
	return full;
}

static int frames_show(struct seq_file *s, void *unused)
{
	const struct hmm_region *region = s->private;
	struct hmm_core_stats f;

	hmm_core_stats(region->core, &f);
	seq_printf(s, "total %llu\nfree %llu\nclaimed %llu\nresident %llu\nretired %llu\nfree_blocks %llu\nblock_pages %u\nfull_blocks %llu\n",
		   f.total, f.free, f.claimed, f.resident, f.retired, f.free_blocks,
		   HMM_BLOCK_PAGES, full_blocks(region));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(frames);

/* Pairs of key and value, each followed by @end. */
static void show_stats(struct seq_file *s, const struct hmm_region_stats *stats, char end)
{
	const struct {
		const char *key;
		u64 value;
	} line[] = {
		{ "to_device", stats->to_device },
		{ "to_ram_request", stats->to_ram_request },
		{ "to_ram_fault", stats->to_ram_fault },
		{ "cpu_faults", stats->cpu_faults },
		{ "ns_to_device", stats->ns_to_device },
		{ "ns_to_ram", stats->ns_to_ram },
		{ "to_ram_evict", stats->to_ram_evict },
		{ "to_ram_teardown", stats->to_ram_teardown },
		{ "huge_to_device", stats->huge_to_device },
		{ "huge_to_ram", stats->huge_to_ram },
		{ "no_frame", stats->no_frame },
		{ "no_ram", stats->no_ram },
		{ "copy_failed", stats->copy_failed },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(line); i++)
		seq_printf(s, "%s %llu%c", line[i].key, line[i].value, end);
}

static int stats_show(struct seq_file *s, void *unused)
{
	struct hmm_region_stats stats;

	hmm_region_stats(s->private, NULL, &stats);
	show_stats(s, &stats, '\n');
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int processes_show(struct seq_file *s, void *unused)
{
	struct hmm_region *region = s->private;
	struct hmm_region_stats stats;
	struct hmm_account *account;
	unsigned long mm;

	/* An account that goes meanwhile is kept by RCU, which the lookup below takes again. */
	rcu_read_lock();
	xa_for_each(&region->accounts, mm, account) {
		hmm_region_stats(region, (struct mm_struct *)mm, &stats);
		seq_printf(s, "process %d ", account->process);
		show_stats(s, &stats, ' ');
		seq_putc(s, '\n');
	}
	rcu_read_unlock();
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(processes);

static void hmm_show_remove(void *dir)
{
	/* Waits for readers. */
	debugfs_remove(dir);
}

/*
 * Show @region until its device, or the caller's devres group, goes. A kernel without debugfs
 * shows nothing, which is no error.
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_show_add(struct hmm_region *region)
{
	struct device *device = region->devmem.device;
	struct dentry *dir;
	char *name;

	name = kasprintf(GFP_KERNEL, "%u-%s", region->id, dev_name(device));
	if (!name)
		return -ENOMEM;
	dir = debugfs_create_dir(name, show_root);
	kfree(name);
	debugfs_create_file("region", 0400, dir, region, &region_fops);
	debugfs_create_file("frames", 0400, dir, region, &frames_fops);
	debugfs_create_file("stats", 0400, dir, region, &stats_fops);
	debugfs_create_file("processes", 0400, dir, region, &processes_fops);
	return devm_add_action_or_reset(device, hmm_show_remove, dir);
}

void hmm_show_init(void)
{
	show_root = debugfs_create_dir("hmm_devmem", NULL);
	hmm_fail_init(show_root);
}

void hmm_show_exit(void)
{
	debugfs_remove(show_root);
}
