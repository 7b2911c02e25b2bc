FROM busybox
SHELL ["/bin/busybox", "sh", "-ec"]
RUN echo shell \
    # a comment in between
    form
CMD echo cmd
HEALTHCHECK --interval=5s --timeout=1m --start-period=1h --start-interval=100ms --retries=4 \
    CMD ["probe", "--fast"]
