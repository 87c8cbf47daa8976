# SPDX-License-Identifier: GPL-2.0
#
# hmm_core.o of a module: the finished object $(hmm-core), made known to the kernel.
#
# From 6.2 or so on, kbuild runs objtool on the finished module and so covers the core.
# Before that it runs objtool on every C object, and we do the same for ours: without it
# there is no ORC data and no list of return sites for the kernel to patch. Before 5.19 the
# command had other names.

objtool-core = $(if $(delay-objtool),,$(if $(objtool-args-y), \
	; $(objtool) $(objtool-args-y) --module $@)$(if $(__objtool_obj), \
	; $(__objtool_obj) $(objtool_args) $@))

quiet_cmd_core = CORE    $@
      cmd_core = cat $< > $@ $(objtool-core)

$(obj)/hmm_core.o: $(hmm-core) FORCE
	$(call if_changed,core)

targets += hmm_core.o
