"""Images.

Source: https://docs.openstack.org/api-ref/image/v2/#images
"""
