"""The search for allocation candidates: which providers could together serve a request.

Source: Placement API reference, "List allocation candidates"; Placement user guide, "Provider tree" and "Modeling with
sharing providers".

A request is made of groups.  A group with a suffix is served by one provider.  The group without one may be spread, a
resource class at a time, over the providers of one tree and over sharing providers: those that have the trait
MISC_SHARES_VIA_AGGREGATE and an aggregate in common with a provider of the tree.  All groups are served by one tree
and the providers that share with it.
"""
